"""Options that several commands share, and what they mean together.

Like every module of the command line it imports torch, data sets and models within functions: `pni --help` answers at
once.
"""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from pnilib.config import PROFILES, PNIConfig
from pnilib.data.words import DATASETS
from pnilib.errors import PNIError

__all__ = [
    "AsJson",
    "Categories",
    "DatasetName",
    "Device",
    "Options",
    "Out",
    "Profile",
    "Progress",
    "Refined",
    "Root",
    "Seed",
    "Set",
    "build_config",
    "chosen_categories",
    "device_name",
    "emit",
    "parse_options",
]

DatasetName = Annotated[str, typer.Option("--dataset", "-d", help="Layout: " + ", ".join(DATASETS) + ".")]
Root = Annotated[Path, typer.Option("--root", "-r", help="Folder of the data set.")]
Categories = Annotated[
    list[str] | None, typer.Option("--category", "-c", help="Category; repeat for several. Default: all.")
]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        help="NAME=VALUE of the layout, as normal=good,good_2 (which folders are normal) or split=tile for mtd; "
        "repeatable (data_prep/ explains).",
    ),
]
Profile = Annotated[
    str,
    typer.Option(
        "--profile", "-p", help="Named configuration: " + ", ".join(PROFILES) + ". `pni config` lists every setting."
    ),
]
Set = Annotated[
    list[str] | None, typer.Option("--set", "-s", help="NAME=VALUE changes one setting, as sigma=4; repeatable.")
]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of every random choice; default: the profile's.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, or auto: a GPU where there is one.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder to write to; the same command resumes there.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Refined = Annotated[
    bool, typer.Option("--refined", help="Maps fused with those of the refinement network (`pni refine`).")
]
Progress = Annotated[bool, typer.Option("--progress/--quiet", help="Progress bars on standard error.")]


_PATHS = ("test_root", "train_list")
"""Options of layouts that are paths."""


def build_config(profile: str, overrides: list[str] | None, seed: int | None) -> PNIConfig:
    """The profile with the changes of --set and --seed."""
    values = PNIConfig.parse_overrides(overrides or [])
    if seed is not None:
        values["seed"] = seed
    return PNIConfig.profile(profile).replace(**values)


def parse_options(pairs: list[str] | None) -> dict[str, Any]:
    """`["split=tile", "seed=3"]` -> values; numbers and true/false become such."""
    options: dict[str, Any] = {}
    for pair in pairs or []:
        name, equals, text = pair.partition("=")
        if not equals:
            raise PNIError(f"--option {pair}: is not NAME=VALUE: write for instance split=tile")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        if name in _PATHS and isinstance(value, str):
            value = os.path.abspath(os.path.expanduser(value))  # a run is opened from any folder
        options[name] = tuple(value) if isinstance(value, list) else value
    return options


def chosen_categories(dataset: str, root: Path, wanted: list[str] | None) -> list[str]:
    """The named categories, or all there are."""
    from pnilib.data import list_categories

    return list(wanted) if wanted else list_categories(dataset, root)


def device_name(device: str) -> str:
    """Checked device; `auto` picks CUDA where there is one."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device != "cpu" and not (device.startswith("cuda") and torch.cuda.is_available()):
        raise PNIError(f"device {device}: is not available: use cpu or auto")
    return device


def emit(value: Any) -> None:
    """One JSON document on standard output; NaN becomes null."""

    def plain(item: Any) -> Any:
        if isinstance(item, dict):
            return {str(k): plain(v) for k, v in item.items()}
        if isinstance(item, list | tuple):
            return [plain(v) for v in item]
        if isinstance(item, float) and item != item:
            return None
        return str(item) if isinstance(item, Path) else item

    typer.echo(json.dumps(plain(value), indent=2, allow_nan=False))
