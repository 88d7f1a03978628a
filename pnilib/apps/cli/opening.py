"""Opening what a command was given, and saying what was found there."""

from pathlib import Path
from typing import Any

import typer

from pnilib.config import PNIConfig
from pnilib.data import Dataset, load_dataset
from pnilib.data.files import list_images
from pnilib.store.text import shown

__all__ = ["open_dataset", "say_what_materials_were_read", "say_what_was_found"]


def open_dataset(dataset: str, root: Path, category: str, options: dict[str, Any]) -> Dataset:
    """One category, with what was found there on standard error."""
    data = load_dataset(dataset, root, category, **options)
    say_what_was_found(data)
    return data


def say_what_was_found(data: Dataset) -> None:
    """On standard error: how many images of which kind, and what lies among them and was not read."""
    typer.echo(f"{shown(data.category)}: {data.summary()}", err=True)
    for note in data.notes:
        typer.echo(f"{shown(data.category)}: {note}", err=True)


def say_what_materials_were_read(config: PNIConfig) -> None:
    """On standard error: what in the folders of textures and patches was not read."""
    for folder, deep in ((config.defect_textures, True), (config.defect_patches, False)):
        if folder != "builtin" and (note := list_images(folder, deep=deep).note()):
            typer.echo(note, err=True)
