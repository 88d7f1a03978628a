"""New images, scored: one CSV, and a heat map of each, all on one colour scale.

scores.csv           one row an image
heatmaps/            one picture an image; its name stands in the table
scores.part.jsonl    while a run is on: each finished image, so that a killed run resumes and loses one image at most

A finished image counts for the same bytes of image and model, the same settings and the same version only.  When the
table is whole, it replaces an earlier one, the heat maps that earlier tables list and today's does not are deleted, and
a note says so; other files are left there.
"""

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8
from matplotlib import colormaps
from numpy import ndarray
from PIL import Image
from tqdm import tqdm

from pnilib.data.appearance import notes_on_new_images
from pnilib.data.files import IMAGE_SUFFIXES, list_images, no_image, refuse_output, refuse_output_around
from pnilib.data.images import read_image
from pnilib.data.masks import without_masks
from pnilib.detector.prediction import Scored, Settings
from pnilib.errors import PNIError
from pnilib.store.files import atomic_write, os_errors, write_csv
from pnilib.store.locks import lock_folder, mark_output
from pnilib.store.text import many, shown
from pnilib.store.version import pnilib_version

__all__ = ["Scorer", "Scores", "heat_map", "score_images"]

COLUMNS = ["image", "score", "defective", "problem", "heat_map"]
LONGEST = 240
"""bytes of a heat map's name: file systems take 255, of which a file in the making needs some."""


@runtime_checkable
class Scorer(Protocol):
    """A fitted model of any kind."""

    @property
    def config(self) -> Settings: ...
    @property
    def device(self) -> str: ...
    @property
    def train_paths(self) -> list[str]: ...
    def fingerprint(self, *, refined: bool = False) -> str: ...
    def decision(self, *, refined: bool = False) -> tuple[float, str]: ...
    def map_limits(self, *, refined: bool = False) -> tuple[float, float]: ...
    def predict(self, images: Any, *, refined: bool = False) -> Scored: ...


@dataclass(frozen=True)
class Scores:
    """What `score_images` found.

    table: one row an image.  image: its name below `folder`; score; defective: at or above the normal-only
    threshold, empty where the model has none; problem: why an image without a score could not be read; heat_map: its
    file within the output folder.  folder: holds everything that was given.  notes: what was not read, what is unlike
    the training images, what the table cannot say, what else lies there.
    """

    table: pd.DataFrame
    folder: Path
    notes: list[str]

    @property
    def n_scored(self) -> int:
        """Images that have a score."""
        return int(self.table["score"].notna().sum())


def heat_map(
    image: Float[ndarray, "h w 3"], anomaly_map: Float[ndarray, "h w"], limits: tuple[float, float]
) -> UInt8[ndarray, "h w 3"]:
    """The grey image under the map: clear at the lower limit (score units), opaque at the upper."""
    low, high = limits
    level = np.clip((anomaly_map - low) / max(high - low, 1e-12), 0.0, 1.0)
    colours = colormaps["inferno"](level)[..., :3]
    strength = 0.8 * level[..., None]
    blended = (1 - strength) * image.mean(axis=2, keepdims=True) + strength * colours
    return (255 * np.clip(blended, 0, 1)).round().astype(np.uint8)


def score_images(
    model: Scorer,
    images: Path | str | Sequence[Path | str],
    out: Path | str,
    *,
    refined: bool = False,
    progress: bool = False,
) -> Scores:
    """Score images, and all below folders, and write out/scores.csv and out/heatmaps.

    An image that cannot be read has a row that says why; the others are scored all the same.  `refined`: maps fused
    with those of the model's refinement network.  Heat maps are clear and opaque at the model's `map_limits`.

    Raises PNIError for a path that is no image or holds none, an `out` that holds the images, a model without
    calibration, or without a network to refine with, and when another run writes to `out`.
    """
    out, limits = Path(out), model.map_limits(refined=refined)
    files, folder, notes = _image_files([images] if isinstance(images, str | Path) else images, out)
    notes += notes_on_new_images(files.values(), model.config.geometry, model.train_paths)
    key = _key(model, limits, refined)
    with lock_folder(out):
        mark_output(out / "heatmaps")
        record = out / "scores.part.jsonl"
        done, listed = _finished(record, key)
        listed |= set(_listed(out / "scores.csv", "heat_map"))
        earlier = _listed(out / "scores.csv", "image")
        with open(record, "a" if done else "w", encoding="utf-8") as handle:
            if not done:
                handle.write(json.dumps({"model": key, "listed": sorted(listed)}) + "\n")
            for name, path in tqdm(files.items(), desc="scoring", unit="image", disable=not progress):
                digest = _digest(path)
                if name in done and digest is not None and done[name]["digest"] == digest:
                    continue
                done[name] = {"digest": digest, "row": _score_one(model, limits, refined, name, path, out)}
                handle.write(json.dumps({"name": name} | done[name]) + "\n")
                handle.flush()
        table = pd.DataFrame([done[name]["row"] for name in files], columns=COLUMNS)
        write_csv(out / "scores.csv", table)
        notes += _replaced(out, table, earlier) + _clear(out, table, listed)
        record.unlink()
    if note := model.decision(refined=refined)[1]:
        notes.append(note)
    return Scores(table, folder, notes)


def _image_files(given: Sequence[Path | str], out: Path) -> tuple[dict[str, Path], Path, list[str]]:
    """Name to show -> file, sorted; the folder that names are relative to; and what was not read.

    The folder is the one that holds everything given: it itself if it is only one.
    """
    found: list[Path] = []
    bases, notes = [], []
    for path in map(Path, given):
        if path.is_dir():
            refuse_output(path)
            listing = list_images(path, deep=True, without=out)
            if not listing.images:
                raise no_image(listing, f"give the folder with the images ({', '.join(IMAGE_SUFFIXES)})")
            images, left_out = without_masks(listing.images, path)
            found += images
            bases.append(path)
            notes += left_out + ([listing.note()] if listing.note() else [])
        elif path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
            found.append(path)
            bases.append(path.parent)
        elif path.exists():
            raise PNIError(f"{path}: is no image ({', '.join(IMAGE_SUFFIXES)}): give images, or folders of images")
        elif any(letter in str(path) for letter in "*?["):
            raise PNIError(
                f"{path}: there is no such file: leave the quotes out, so that the shell fills in the pattern"
            )
        else:
            raise PNIError(f"{path}: there is no such file or folder: check the path")
    if not found:
        raise PNIError("there are no images to score: give images, or folders of images")
    refuse_output_around(found, out)
    base = os.path.commonpath([os.path.abspath(path) for path in bases])
    named = {os.path.relpath(os.path.abspath(path), base): path for path in found}
    return dict(sorted(named.items())), Path(base), notes


def _key(model: Scorer, limits: tuple[float, float], refined: bool) -> str:
    """What every row depends on, beside the image."""
    decided = model.decision(refined=refined)
    parts = [
        model.fingerprint(refined=refined), model.config.to_dict(), limits, decided, refined, model.device,
        pnilib_version(),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _digest(path: Path) -> str | None:
    """SHA-256 of a file; None when it cannot be read, which its row will tell."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _finished(record: Path, key: str) -> tuple[dict[str, dict[str, Any]], set[str]]:
    """Rows that an interrupted run of this key left, and all heat maps of interrupted runs, whichever their key.

    A last half-written line is dropped.
    """
    try:
        first, *lines = record.read_text(encoding="utf-8").splitlines()
        header = json.loads(first)
        listed = set(header["listed"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}, set()
    done: dict[str, dict[str, Any]] = {}
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            break
        done[entry["name"]] = {"digest": entry["digest"], "row": entry["row"]}
        listed.add(entry["row"]["heat_map"])
    return done if header["model"] == key else {}, listed - {None}


def _listed(file: Path, column: str) -> list[str]:
    """Heat maps, or images, that a finished table lists."""
    try:
        found = pd.read_csv(file, usecols=[column], dtype=str, keep_default_na=False)[column]
        return [name for name in found if name]
    except (OSError, ValueError):
        return []


def _replaced(out: Path, table: pd.DataFrame, earlier: list[str]) -> list[str]:
    """One line about images of the table before that today's does not list."""
    gone = sorted(set(earlier) - set(table["image"]))
    if not gone:
        return []
    return [
        f"{out / 'scores.csv'}: replaced an earlier table, {many(len(gone), 'image')} of which are not among these, "
        f"as {gone[0]}: choose another --out to keep both"
    ]


def _clear(out: Path, table: pd.DataFrame, listed: set[str]) -> list[str]:
    """Delete the heat maps that were listed and are not today's; one line about files that nobody listed."""
    today, foreign = set(table["heat_map"].dropna()), []
    for path in sorted((out / "heatmaps").rglob("*")):
        name = path.relative_to(out).as_posix()
        if name in today or path.name.startswith(".") or not path.is_file():
            continue
        if name in listed:
            with os_errors(path):
                path.unlink()
        else:
            foreign.append(name)
    if not foreign:
        return []
    number = many(len(foreign), "file")
    return [f"{out / 'heatmaps'}: also holds {number} that no table lists, left there, e.g. {foreign[0]}"]


def _score_one(
    model: Scorer, limits: tuple[float, float], refined: bool, name: str, path: Path, out: Path
) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS) | {"image": shown(name)}
    try:
        image = read_image(path, model.config.geometry)
    except PNIError as fault:
        return row | {"problem": shown(str(fault))}
    found = model.predict(image[None], refined=refined)
    picture = heat_map(image.permute(1, 2, 0).numpy(), found.maps[0], limits)
    place = _heat_map_name(name)
    with atomic_write(out / place, "wb") as handle:
        Image.fromarray(picture).save(handle, format="PNG")
    score = float(found.image_scores[0])
    decision = None if math.isnan(found.threshold) else bool(score >= found.threshold)
    return row | {"score": score, "defective": decision, "heat_map": place}


def _heat_map_name(name: str) -> str:
    """`heatmaps/good/000.png.png` for good/000.png; a hash keeps cut and undecodable names apart."""
    folder, _, file = shown(name).rpartition("/")
    if shown(name) != name or len(os.fsencode(file)) + len(".png") > LONGEST:
        mark = "-" + hashlib.sha256(os.fsencode(name)).hexdigest()[:12]
        while len(os.fsencode(file)) + len(mark) + len(".png") > LONGEST:
            file = file[:-1]
        file += mark
    return f"heatmaps/{folder}/{file}.png" if folder else f"heatmaps/{file}.png"
