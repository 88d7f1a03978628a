"""What the files around the package promise: they agree with it and with each other."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

from pnilib.apps import cli
from pnilib.apps.notebooks.runner import parameter_names
from pnilib.config import PNIConfig

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

CONDA_NAMES = {"torch": "pytorch", "opencv-python-headless": "py-opencv"}
IMPORT_NAMES = {
    "PIL": "pillow", "cv2": "opencv-python-headless", "faiss": "faiss-cpu", "skimage": "scikit-image",
    "sklearn": "scikit-learn", "yaml": "pyyaml", "IPython": "ipywidgets", "lazy_loader": "lazy-loader",
    "mpl_toolkits": "matplotlib", "huggingface_hub": "timm",
}  # fmt: skip


def bounds(requirements: list[str]) -> dict[str, str]:
    """`["a>=1", "b"]` -> `{"a": "1", "b": ""}`."""
    return dict((re.match(r"([\w.-]+)(?:[=>]=)?(.*)", text) or [""]).groups() for text in requirements)  # type: ignore[union-attr,misc]


def tracked(*patterns: str) -> list[Path]:
    """Files under version control; skips outside a git checkout."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def declared(*extras: str) -> dict[str, str]:
    """Lower bounds by name, of the package and of some extras; `pnilib[...]` in one names others."""
    found = bounds(PROJECT["dependencies"])
    for extra in extras:
        for line in PROJECT["optional-dependencies"][extra]:
            inner = re.match(r"pnilib\[(.*)\]", line)
            found |= declared(*inner[1].split(",")) if inner else bounds([line])
    return found


def test_environment_and_pyproject_agree_both_ways():
    wanted = {CONDA_NAMES.get(name, name): low for name, low in declared("all").items()}
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    by_pip = [name for entry in environment["dependencies"] if isinstance(entry, dict) for name in entry["pip"]]
    listed = bounds([entry for entry in environment["dependencies"] if isinstance(entry, str)] + by_pip)
    assert listed.pop("python") == PROJECT["requires-python"].removeprefix(">=")
    assert listed.pop("pip") == ""
    assert listed == wanted
    assert environment["channels"][0] == "conda-forge"


EXTRAS = {
    "apps/notebooks": ["notebooks"],
    "apps/explore": ["explore"],
    "apps/reproduce": ["reproduce"],
    "segad": ["segad"],
}


def test_every_import_of_a_room_is_declared_for_it():
    """What fit, predict and evaluate need comes with `pip install pnilib`; the rest with the extra of its room."""
    undeclared = set()
    for path in (ROOT / "pnilib").rglob("*.py"):
        place = path.relative_to(ROOT / "pnilib").as_posix()
        known = declared(*next((extras for room, extras in EXTRAS.items() if place.startswith(room)), []))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in {full.partition(".")[0] for full in names} - sys.stdlib_module_names - {"pnilib"}:
                if IMPORT_NAMES.get(name, name) not in known:
                    undeclared.add(f"{place}: {name}")
    assert not undeclared, "add them to pyproject.toml and environment.yml"


def test_a_missing_extra_is_named(monkeypatch, capsys):
    """In one line, with the command that brings it."""
    assert [cli.extra_of(name) for name in ("voila", "yaml", "distributed", "torch", "unheard_of")] == [
        "explore", "notebooks", "reproduce", "", "",
    ]  # fmt: skip
    assert [cli.extra_of("nbformat", command) for command in ("explore", "reproduce", "notebooks", "demo")] == [
        "explore", "reproduce", "notebooks", "notebooks",
    ]  # fmt: skip
    monkeypatch.setitem(sys.modules, "nbformat", None)
    for name in [name for name in sys.modules if name.startswith("pnilib.apps.notebooks")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "argv", ["pni", "notebooks", "--list"])
    with pytest.raises(SystemExit) as status:
        cli.main()
    assert status.value.code == 2
    assert capsys.readouterr().err == 'error: nbformat is not installed: pip install "pnilib[notebooks]"\n'


def test_help_and_import_take_no_torch():
    """Seconds of imports before the first word are for commands that need them."""
    code = "import sys, pnilib, pnilib.apps.cli; print({'torch', 'pandas', 'matplotlib', 'cv2'} & {*sys.modules})"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "set()\n"


def test_citation():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"] == "MIT"
    families = [[author["family-names"] for author in ref["authors"]] for ref in citation["references"]]
    assert families[0] == ["Bae", "Lee", "Kim"]
    assert [names[0] for names in families] == ["Bae", "Roth", "Baitieva", "Schlüter"]
    assert all(ref["type"] == "conference-paper" and ref["year"] >= 2022 for ref in citation["references"])


def test_version_has_a_changelog_entry():
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_notation_names_only_settings_that_exist():
    text = (ROOT / "docs" / "NOTATION.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) > 30 and all(line.count(" | ") == 3 for line in rows), "four columns"
    code = {name for line in rows for name in re.findall(r"`(\w+)`", line.split(" | ")[1])}
    settings = {
        "agg_patch", "dim", "patch", "emb_ratio", "dist_size", "combine", "mlp_layers", "mlp_width",
        "temperature", "lambda_", "sigma", "mlp_lr_gamma",
    }  # fmt: skip
    assert settings <= code and settings <= set(PNIConfig.names())
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "pnilib").rglob("*.py"))
    absent = {name for name in code if not re.search(rf"\b{name}\b", sources)}
    assert not absent, "names that the code does not have"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_clean(path):
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    assert (notebook.nbformat, notebook.nbformat_minor) >= (4, 5), "older formats have no cell ids"
    nbformat.validate(notebook)
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None, "run nbstripout --keep-id"
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in notebook.cells) == 1
    assert parameter_names(path)


def test_no_absolute_paths_and_no_registry_hosts():
    machine = re.compile(r"(?<![\w.:/])/(?:work|home|root|Users|mnt|opt)/\w")
    dot = "."
    hosts = [
        f"pypi{dot}org",
        f"pythonhosted{dot}org",
        f"npmjs{dot}org",
        f"anaconda{dot}org",
        f"debian{dot}org",
    ]
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture
        for number, line in enumerate(text.splitlines(), 1):
            if machine.search(line) or any(host in line for host in hosts):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert not found


def test_results_stay_small():
    sizes = {path: path.stat().st_size for path in tracked("results/*")}
    assert max(size for path, size in sizes.items() if path.suffix == ".html") < 1e6, "embed smaller pictures"
    assert sum(sizes.values()) < 8e6 and not [path for path in sizes if path.name == ".pnilib.lock"]


def run_make(folder: Path, python: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    return subprocess.run(["make", "demo", f"PYTHON={python}"], cwd=folder, capture_output=True, text=True)


def test_make_says_what_it_needs(tmp_path):
    absent = run_make(tmp_path, "no-such-python")
    assert absent.returncode != 0
    assert "no-such-python is not installed: name Python 3.11 or newer" in absent.stdout + absent.stderr
    old = tmp_path / "python3.9"
    pretend = "import sys; sys.version_info = (3, 9, 1); exec(sys.argv[1])"
    old.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{pretend}' \"$2\"\n")
    old.chmod(0o755)
    outdated = run_make(tmp_path, str(old))
    assert outdated.returncode != 0
    assert "is Python 3.9, 3.11 or newer is needed" in outdated.stdout + outdated.stderr
    assert not (tmp_path / ".venv").exists()


def test_ci_runs_make_test():
    script = ROOT / ".ci" / "run"
    assert "make test" in script.read_text() and script.stat().st_mode & 0o111
