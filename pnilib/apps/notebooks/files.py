"""Notebook files: reading them, their parameters, and the students' copy.

Parameters are the names assigned in the cell tagged `parameters`; exercises' answers sit in cells
tagged `solution`.
"""

import ast
import difflib
import re
import shutil
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
import yaml  # type: ignore[import-untyped]

from pnilib.errors import PNIError
from pnilib.store.artefacts import atomic_write, os_errors

__all__ = [
    "copy_notebooks",
    "notebook_text",
    "parameter_names",
    "parse_parameters",
    "read_notebook",
    "refuse_unknown",
    "strip_solutions",
]

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def notebook_text(notebook: nbformat.NotebookNode) -> str:
    """The text of an .ipynb file."""
    return str(nbformat.writes(notebook)) + "\n"  # type: ignore[no-untyped-call]


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """The notebook in `path`.  Raises PNIError when there is none."""
    with os_errors(path):
        text = path.read_text(encoding="utf-8")
    try:
        return nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    except Exception:  # nbformat's errors have no common base
        raise PNIError(f"{path}: not a Jupyter notebook: check the path") from None


def parse_parameters(pairs: Sequence[str]) -> dict[str, Any]:
    """`["seed=1", "device=cpu"]` -> `{"seed": 1, "device": "cpu"}`; values are YAML scalars.

    As in YAML, `true`, `null` and `1.5` are a bool, None and a float, and quotes make text; `1e-3`
    is a number too.  Raises PNIError for a pair without "=", a name given twice, or a list or map.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise PNIError(f"parameter {pair!r} is not NAME=VALUE: write for instance seed=1")
        if name in values:
            raise PNIError(f"parameter {name!r} is given twice: give it once")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise PNIError(f"parameter {pair!r}: the value is no YAML scalar: put it in quotes") from None
        if isinstance(value, dict | list | set):
            raise PNIError(f"parameter {pair!r}: give one value, not a list or map")
        if not isinstance(value, str | int | float | None):
            value = text  # a date, say: notebooks take plain values
        if isinstance(value, str) and value == text and _NUMBER.fullmatch(text):
            value = float(text)  # YAML 1.1 wants 1.0e-3 with a dot
        values[name] = value
    return values


def parameter_names(path: Path | str) -> list[str]:
    """Names assigned in the cell tagged `parameters`, in their order; [] without such a cell.

    Not papermill's `inspect_notebook`: it matches lines, so it misses `a = b = 1` and `title = "x = y"`, and asks for a
    kernel's name.  Raises PNIError when `path` is no notebook or that cell is not Python.
    """
    for cell in read_notebook(Path(path)).cells:
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", []):
            try:
                statements = ast.parse(cell.source).body
            except SyntaxError as error:
                raise PNIError(f"{path}: parameters cell, line {error.lineno}: not Python: correct it") from None
            assigned = [statement for statement in statements if isinstance(statement, ast.Assign | ast.AnnAssign)]
            targets = [
                target for one in assigned for target in (one.targets if isinstance(one, ast.Assign) else [one.target])
            ]
            return [target.id for target in targets if isinstance(target, ast.Name)]
    return []


def refuse_unknown(parameters: dict[str, Any], known: dict[Path, list[str]]) -> None:
    """Raises PNIError for a name that none of the notebooks (path -> declared names) declares."""
    names = list(dict.fromkeys(name for declared in known.values() for name in declared))
    where = str(next(iter(known))) if len(known) == 1 else "all notebooks"
    for name in parameters:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names) or 'none'}"
            raise PNIError(f"{where}: there is no parameter {name!r}: {hint}")


def strip_solutions(src_dir: Path | str, dst_dir: Path | str) -> list[Path]:
    """Write the student copy of every notebook of `src_dir`: no `solution` cells, no outputs.

    Cell ids stay, so that the two copies can be compared.  Returns the written paths.  Raises
    PNIError for a folder without notebooks, or when both folders are the same.
    """
    src_dir, dst_dir = Path(src_dir), Path(dst_dir)
    if src_dir.resolve() == dst_dir.resolve():
        raise PNIError(f"{dst_dir}: the student copy would overwrite the notebooks: choose another folder")
    written = []
    for path in sorted(src_dir.glob("*.ipynb")):
        notebook = read_notebook(path)
        notebook.cells = [cell for cell in notebook.cells if "solution" not in cell.metadata.get("tags", [])]
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        with atomic_write(dst_dir / path.name) as handle:
            handle.write(notebook_text(notebook))
        written.append(dst_dir / path.name)
    if not written:
        raise PNIError(f"{src_dir}: holds no notebooks: check the path")
    return written


def copy_notebooks(folder: Path | str) -> list[Path]:
    """The notebooks that came with the package, copied into a folder.

    Raises PNIError where one of them is there already, or none came along.
    """
    places = (
        Path(__file__).parents[3] / "notebooks",
        Path(sysconfig.get_path("data")) / "share" / "pnilib" / "notebooks",
    )
    found = next((files for place in places if (files := sorted(place.glob("[0-9]*.ipynb")))), [])
    if not found:
        raise PNIError("the notebooks did not come with this installation: take them from the repository")
    folder = Path(folder)
    if there := [file.name for file in found if (folder / file.name).exists()]:
        raise PNIError(f"{folder}: holds {there[0]} already: give a folder without notebooks")
    with os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return [Path(shutil.copy(file, folder)) for file in found]
