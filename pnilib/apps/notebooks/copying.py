"""The notebooks that come with the package; nothing of the extra `notebooks` is needed to copy them."""

import shutil
import sysconfig
from pathlib import Path

from pnilib.errors import PNIError
from pnilib.store.files import os_errors

__all__ = ["copy_notebooks"]


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
