"""Where code may live: arrows between the rooms of the package run down only."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1] / "pnilib"
FLOORS = [
    "errors",
    "store",
    "config",
    "data",
    "features",
    "neighbors",
    "machine k_center",
    "coreset coreset_parts position neighborhood",
    "scoring",
    "maps",
    "metrics",
    "synthesis",
    "refinement",
    "released",
    "detector",
    "evaluation",
    "nsa",
    "segad",
    "published demo",
    "plots",
    "apps",
]
"""Rooms, the lowest floor first; those of one floor do not import one another."""
FLOOR = {room: i for i, floor in enumerate(FLOORS) for room in floor.split()}


def arrows() -> list[tuple[str, str, str, str]]:
    """(file, its room, imported room, what is imported) of every import from the package, inside functions too."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT)
        if str(name) in ("__init__.py", "__main__.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pnilib"):
                modules = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names if alias.name.startswith("pnilib.")]
            else:
                continue
            found += [(str(name), name.with_suffix("").parts[0], module.split(".")[1], module) for module in modules]
    return found


def test_every_room_has_a_floor() -> None:
    rooms = {path.relative_to(ROOT).with_suffix("").parts[0] for path in ROOT.rglob("*.py")} - {"__init__", "__main__"}
    assert rooms == set(FLOOR)


def test_arrows_run_down() -> None:
    rising = [
        f"{file} imports {what}"
        for file, here, there, what in arrows()
        if there != here and FLOOR[there] >= FLOOR[here]
    ]
    assert not rising, "move the code, or hand over what it needs"


def test_no_private_name_leaves_its_module() -> None:
    assert [f"{file}: {what}" for file, _, _, what in arrows() if what.rpartition(".")[2].startswith("_")] == []


def test_the_picture_shows_the_imports_of_today() -> None:
    script = ROOT.parent / "docs" / "architecture.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_legends_say_where_they_stand() -> None:
    """Matplotlib's default, "best", looks at every point drawn, and warns when that takes a busy machine a second."""
    calls = [
        (path.relative_to(ROOT), node.lineno, {keyword.arg for keyword in node.keywords})
        for path in sorted(ROOT.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "legend"
    ]
    assert len(calls) > 10
    assert [(file, line) for file, line, given in calls if "loc" not in given] == []
