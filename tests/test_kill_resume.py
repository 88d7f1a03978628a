"""A command that is killed (-9) at any moment and given again ends with the bytes of an undisturbed run.

The moments are drawn over the time that the command takes: a few here, many in `make stress`.
"""

import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from crew import STRESS, pni
from tiny_grid import OVERRIDES, tiny_data

SET = [word for name, value in OVERRIDES.items() for word in ("--set", f"{name}={value}")]
SMALL = ["--profile", "scattering", "--device", "cpu", "--quiet", *SET]
CHANGING = {"seconds", "peak_memory", "commit", "made_by", "runs_by"}
"""What JSON says of the run itself."""


@dataclass(frozen=True)
class Command:
    """kills: in the tests, and in `make stress`.  given: what must lie in the working folder.  status: with which it
    ends."""

    kills: tuple[int, int]
    words: list[object]
    given: tuple[str, ...] = ("data",)
    status: int = 0


# Status 1: the table lacks the other categories of MVTec AD.
TABLE = ["reproduce", "table-3", "--data", "mvtec=data", "--seeds", 1, "--store", "store", "--out", "out", *SMALL]
COMMANDS = {
    "fit": Command((4, 30), ["fit", "--dataset", "mvtec", "--root", "data", "--out", "run", *SMALL]),
    "score": Command((4, 30), ["score", "run/part", "data", "--out", "out", "--device", "cpu"], ("data", "run")),
    "refine": Command((4, 30), ["refine", "run", "--device", "cpu"], ("data", "run")),
    "reproduce": Command((2, 12), [*TABLE, "--workers", 1]),
    "reproduce with two workers": Command((0, 3), [*TABLE, "--workers", 2]),
}
TRIALS = [(name, k) for name, command in COMMANDS.items() for k in range(command.kills[STRESS])]


class Place:
    """A working folder, the same for every run of a command, since a model remembers where its images were."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.start = folder / "here", folder / "start"
        self.expected: dict[str, tuple[float, dict[str, Any]]] = {}
        tiny_data(self.start, ("part",), n_train=4)
        shutil.copytree(self.start / "data", self.folder / "data")
        pni(COMMANDS["fit"].words, self.folder)
        shutil.copytree(self.folder / "run", self.start / "run")

    def lay_out(self, command: Command) -> None:
        shutil.rmtree(self.folder)
        for name in command.given:
            shutil.copytree(self.start / name, self.folder / name)

    def undisturbed(self, name: str) -> tuple[float, dict[str, Any]]:
        """Seconds, and files: path -> bytes, or what JSON says but for CHANGING."""
        if name not in self.expected:
            self.lay_out(COMMANDS[name])
            seconds = pni(COMMANDS[name].words, self.folder, COMMANDS[name].status)
            self.expected[name] = seconds, self.files()
        return self.expected[name]

    def files(self) -> dict[str, Any]:
        """Hidden files are locks, marks, and what a kill left half-written."""
        found: dict[str, Any] = {}
        for path in sorted(self.folder.rglob("[!.]*")):
            if (
                path.is_file()
                and "/." not in path.relative_to(self.folder.parent).as_posix()
                and path.name != "log.txt"
            ):
                name = path.relative_to(self.folder).as_posix()
                found[name] = (
                    lasting(json.loads(path.read_text("utf-8"))) if path.suffix == ".json" else path.read_bytes()
                )
                if path.name == "manifest.json":
                    del found[name]["files"]["meta.json"]  # the checksum of a file with seconds
        return found


def lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: lasting(entry) for name, entry in value.items() if name not in CHANGING}
    return value


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("kill"))


@pytest.mark.parametrize(("name", "k"), TRIALS)
def test_killed_at_any_moment(name: str, k: int, place: Place) -> None:
    command, (seconds, expected) = COMMANDS[name], place.undisturbed(name)
    place.lay_out(command)
    draw = random.Random(f"{name} {k}")
    for _ in range(1 + k % 2):
        pni(command.words, place.folder, command.status, kill_after=draw.uniform(0, seconds))
    pni(command.words, place.folder, command.status)
    found = place.files()
    assert found.keys() == expected.keys() and len(found) > 2
    assert [path for path in found if found[path] != expected[path]] == []
