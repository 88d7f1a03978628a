"""New images, scored: one CSV, and a heat map of each, all on one colour scale.

Each finished image is noted in scores.part.jsonl, so a killed run resumes and loses one image at most.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8
from matplotlib import colormaps
from numpy import ndarray
from PIL import Image
from tqdm import tqdm

from pnilib.artefacts import atomic_write, exclusive, mark_output
from pnilib.data.files import IMAGE_SUFFIXES, list_images, no_image, refuse_output, refuse_output_around
from pnilib.errors import PNIError
from pnilib.images import read_image
from pnilib.pni import PNI
from pnilib.prediction import Calibration

__all__ = ["heat_map", "score_folder"]

COLUMNS = ["image", "score", "defective", "problem"]


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


def score_folder(
    model: PNI, images: Path | str, out: Path | str, *, refined: bool = False, progress: bool = False
) -> pd.DataFrame:
    """Score every image below `images`; returns, and writes to out/scores.csv, one row an image.

    `refined`: maps fused with those of the model's refinement network.

    score; defective: at or above the normal-only threshold, empty where the model has none; problem: why an unreadable
    image has no score (the others are scored all the same).  Heat maps are clear up to the middle of what the
    calibration images' maps reach, and opaque at 1.25 times the most that they reach (counted from their least, where
    that is negative).

    Raises PNIError for no images, a model without calibration, or without a network to refine with, when images lie in
    `out`, and when another run writes there.
    """
    images, out = Path(images), Path(out)
    if refined and model.refinement is None:
        raise PNIError("the model has no refinement network: train one with `pni refine`")
    calibration = model.refined_calibration if refined else model.calibration
    if calibration is None:
        raise PNIError(
            "the model carries no calibration, which sets threshold and colours: fit with calibration_images > 0"
        )
    files = _image_files(images, out)
    refuse_output_around(files.values(), out)
    facts = None if model.refinement is None else model.refinement.facts()
    identity = [model.config.to_dict(), model.train_paths, refined, facts]
    model_id = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    with exclusive(out):
        mark_output(out / "heatmaps")
        notes = out / "scores.part.jsonl"
        done = _finished(notes, model_id)
        with open(notes, "a" if done else "w", encoding="utf-8") as record:
            if not done:
                record.write(json.dumps({"model": model_id}) + "\n")
            for name, path in tqdm(files.items(), desc="scoring", unit="image", disable=not progress):
                stamp = path.stat().st_mtime_ns
                if name in done and done[name]["stamp"] == stamp:
                    continue
                done[name] = {"stamp": stamp, "row": _score_one(model, calibration, refined, name, path, out)}
                record.write(json.dumps({"name": name} | done[name]) + "\n")
                record.flush()
        table = pd.DataFrame([done[name]["row"] for name in files], columns=COLUMNS)
        with atomic_write(out / "scores.csv") as handle:
            table.to_csv(handle, index=False, lineterminator="\n")
        notes.unlink()
    return table


def _image_files(images: Path, out: Path) -> dict[str, Path]:
    """Name to show -> file, sorted."""
    if images.is_file():
        return {images.name: images}
    refuse_output(images)
    listing = list_images(images, deep=True, without=out)
    if not listing.images:
        raise no_image(listing, f"give the folder with the images ({', '.join(IMAGE_SUFFIXES)})")
    return {path.relative_to(images).as_posix(): path for path in listing.images}


def _finished(notes: Path, model_id: str) -> dict[str, dict[str, Any]]:
    """Rows that an interrupted run of the same model left; a last half-written line is dropped."""
    try:
        lines = notes.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    done: dict[str, dict[str, Any]] = {}
    for i, line in enumerate(lines):
        try:
            entry = json.loads(line)
        except ValueError:
            return done
        if i == 0:
            if entry.get("model") != model_id:
                return {}
        else:
            done[entry["name"]] = {"stamp": entry["stamp"], "row": entry["row"]}
    return done


def _score_one(model: PNI, calibration: Calibration, refined: bool, name: str, path: Path, out: Path) -> dict[str, Any]:
    try:
        image = read_image(path, model.config.geometry)
    except PNIError as fault:
        return {"image": name, "score": None, "defective": None, "problem": str(fault)}
    found = model.predict(image[None], refined=refined)
    low, high = calibration.low, calibration.high
    limits = ((low + high) / 2, high + 0.25 * (high - min(low, 0.0)))  # a refined map may be negative
    picture = heat_map(image.permute(1, 2, 0).numpy(), found.maps[0], limits)
    with atomic_write(out / "heatmaps" / f"{name}.png", "wb") as handle:
        Image.fromarray(picture).save(handle, format="PNG")
    score = float(found.image_scores[0])
    decision = None if math.isnan(found.threshold) else bool(score >= found.threshold)
    return {"image": name, "score": score, "defective": decision, "problem": None}
