"""Draws docs/architecture.png from the package's imports:  python docs/architecture.py  (--check: is it up to date?)

A box is a room of `pnilib` (a module or folder at the top; of `apps`, those within), its words the first line of its
docstring.  A room stands one floor above the highest that it imports.  Arrows that follow from others are left out.
The picture carries rooms and arrows as text, by which a test sees whether it is out of date.
"""

import ast
import json
import sys
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
from PIL import Image

ROOT = Path(__file__).parents[1] / "pnilib"
PICTURE = Path(__file__).parent / "architecture.png"
LEFT_OUT = ("__init__", "__main__", "errors")  # everything imports the errors


def room_of(parts: list[str]) -> str:
    """The room that a module belongs to, by its path below pnilib."""
    name, *rest = parts
    return f"apps/{rest[0]}" if name == "apps" and rest and rest[0] != "__init__" else name


def imports() -> dict[str, set[str]]:
    """Room -> rooms that its files import, inside functions too."""
    found: dict[str, set[str]] = {}
    for path in sorted(ROOT.rglob("*.py")):
        here = room_of(list(path.relative_to(ROOT).with_suffix("").parts))
        if here in LEFT_OUT or here == "apps":
            continue
        found.setdefault(here, set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pnilib"):
                for alias in node.names:
                    there = room_of([*(node.module or "").split("."), alias.name][1:])
                    found[here] |= {there} - {here, "apps", *LEFT_OUT}
    return {here: {there for there in rooms if there in found} for here, rooms in found.items()}


def floors(arrows: dict[str, set[str]]) -> dict[str, int]:
    """Room -> how many rooms are below it on its longest way down."""
    known: dict[str, int] = {}

    def floor(room: str) -> int:
        if room not in known:
            known[room] = 1 + max((floor(below) for below in arrows[room]), default=-1)
        return known[room]

    return {room: floor(room) for room in arrows}


def necessary(arrows: dict[str, set[str]]) -> dict[str, set[str]]:
    """The arrows that do not follow from others."""

    def below(room: str) -> set[str]:
        return arrows[room].union(*(below(other) for other in arrows[room])) if arrows[room] else set()

    return {
        room: {to for to in rooms if not any(to in below(other) for other in rooms)} for room, rooms in arrows.items()
    }


def words(room: str) -> str:
    """First line of a room's docstring, to its first stop."""
    path = ROOT / room
    text = ast.get_docstring(
        ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text("utf-8"))
    )
    line = (text or "").splitlines()[0] if text else ""
    for stop in (". ", ": ", "; ", " ("):
        line = line.partition(stop)[0]
    return line.rstrip(".:")


def drawn() -> str:
    """What the picture shows, as text."""
    return json.dumps({room: sorted(rooms) for room, rooms in necessary(imports()).items()}, sort_keys=True)


def main() -> None:
    """Draw, or check."""
    if "--check" in sys.argv:
        sys.exit(
            0 if Image.open(PICTURE).text.get("Description") == drawn() else f"{PICTURE}: run docs/architecture.py"
        )
    arrows = imports()
    floor, lines = floors(arrows), necessary(arrows)
    rows = [sorted(room for room in arrows if floor[room] == k) for k in range(max(floor.values()) + 1)]
    at: dict[str, tuple[float, float]] = {}
    for k, row in enumerate(rows):  # each above the middle of what it rests on
        row.sort(key=lambda room: sum(at[to][0] for to in lines[room]) / max(1, len(lines[room])))
        wide = 0.22 * (len(row) > 6)  # in two lines
        at |= {room: ((i + 0.5) / len(row), k + (wide if i % 2 else -wide)) for i, room in enumerate(row)}
    figure, ax = plt.subplots(figsize=(12, 0.95 * len(rows)), layout="constrained")
    for room, rooms in lines.items():
        for to in rooms:
            arrow = dict(arrowstyle="-|>", color="#8899aa", shrinkA=14, shrinkB=16, linewidth=0.8)
            ax.annotate("", at[to], at[room], arrowprops=arrow, zorder=0)
    for room, (x, y) in at.items():
        text = f"$\\bf{{{room.replace('_', chr(92) + '_')}}}$\n" + textwrap.fill(words(room), 26)
        color = "#fdebd0" if room.startswith("apps") else "#e8f0f8"
        ax.text(x, y, text, ha="center", va="center", fontsize=7, bbox=dict(boxstyle="round", fc=color, ec="#556677"))
    ax.set(xlim=(0, 1), ylim=(-0.6, len(rows) - 0.4))
    ax.axis("off")
    figure.savefig(PICTURE, dpi=110, metadata={"Description": drawn(), "Software": None})


if __name__ == "__main__":
    main()
