"""Making the refinement's training set: synthetic images, scored by a fitted PNI model (PNI sec. 3.3, eq. 9).

*Which model scores.*  A model has stored the very normals that carry the paste, so that its maps are too clean outside
the defect.  The paper is silent; `pool_maps` offers the fitted model, the same without the image's own coreset
vectors, and cross-fitting: models fitted on the other folds.

A killed run loses the images in progress.  A pool of another configuration or other images has another folder.  Images
are made in threads; image k depends on the seed and k alone.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from numpy import ndarray
from tqdm.auto import tqdm

from pnilib.config import PNIConfig
from pnilib.data import Split
from pnilib.detector.folds import fold_models
from pnilib.detector.pni import PNI
from pnilib.errors import PNIError
from pnilib.refinement.pool import Pool, pool_file, pool_size
from pnilib.store.files import atomic_write, write_json
from pnilib.store.locks import lock_folder
from pnilib.store.text import read_json
from pnilib.store.version import pnilib_version
from pnilib.synthesis import Materials, foreground_mask, mixture, synthesize
from pnilib.synthesis.patches import load_patches
from pnilib.synthesis.textures import load_textures

__all__ = ["build_pool"]

WORKERS = max(1, min(8, os.cpu_count() or 1))
"""Threads that make images."""


def build_pool(model: PNI, train: Split, work: Path | str, name: str = "", *, progress: bool = False) -> Pool:
    """The pool of one category, below the folder `work`; finished files found there are used, and a pool that another
    run is making is waited for.

    `model`: fitted on `train`; its configuration says what to draw.  Raises PNIError for a setting that does not fit
    the images (a single image cannot be cross-fitted; an image without foreground, named), empty texture or patch
    folders, or maps that span nothing.
    """
    config = model.config
    mixture(config.defects)
    n, work = pool_size(config), Path(work)
    materials = _materials(config, train)
    weights = model.embedder.backbone.weights_id
    identity = [pnilib_version(), config.stage_key("defects"), train.fingerprint(), weights, n, _digest(materials)]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    folder = work / f"pool-{key}"
    facts = folder / "pool.json"
    missing = [k for k in range(n) if not pool_file(folder, k).exists()]
    if missing or not facts.exists():  # a whole pool may be read by many at once
        with lock_folder(folder, wait=True):
            missing = [k for k in range(n) if not pool_file(folder, k).exists()]
            scorers = fold_models(model, train, work, progress=progress) if missing else [model]
            _fill(folder, missing, n, scorers, train, config, materials, progress)
            write_json(facts, {"n": n} | _extremes(folder, n))
    try:
        found = read_json(facts)
        low, high = float(found["low"]), float(found["high"])
    except (ValueError, TypeError, KeyError):
        raise PNIError(f"{facts}: is damaged: delete it and run `pni refine` again") from None
    if not high > low:
        raise PNIError(f"{folder}: the maps of the pool span nothing: check the training images")
    return Pool(name, folder, n, low, high)


def _fill(
    folder: Path, missing: list[int], n: int, scorers: list[PNI], train: Split, config: PNIConfig,
    materials: Materials, progress: bool,
) -> None:  # fmt: skip
    geometry = config.geometry

    @lru_cache(maxsize=256)
    def read(i: int) -> ndarray:
        pixels = train.image(i, geometry).permute(1, 2, 0).numpy()
        return (pixels * 255).round().astype(np.uint8)

    parts = config.defect_area == "foreground" and _mostly_parts([read(i) for i in range(min(len(train), 15))])

    def make(k: int) -> None:
        i = k % len(train)
        rng = np.random.default_rng((config.seed, k))
        image, mask, drawn = read(i), np.zeros((config.image_crop,) * 2, bool), {"kind": "clean"}
        if rng.random() >= config.pool_clean:
            area = foreground_mask(image.astype(np.float32) / 255) if parts else None
            try:
                image, mask, drawn = synthesize(
                    image, config.defects, int(rng.integers(2**62)), area=area, materials=materials
                )
            except PNIError as fault:
                raise PNIError(f"{train.samples['image_path'].iloc[i]}: {fault}") from None
        scorer = scorers[i % len(scorers)]
        own = [i] if config.pool_maps == "leave_out" else None
        tensor = torch.from_numpy(image).movedim(2, 0)[None].float() / 255
        anomaly_map = scorer.maps(tensor, without_image=own)[0]
        if anomaly_map.max() <= np.finfo(np.float16).max:  # random weights can give larger scores
            anomaly_map = anomaly_map.astype(np.float16)
        blob = safetensors.numpy.save(
            {"image": np.ascontiguousarray(image), "map": anomaly_map, "mask": mask}, {"drawn": json.dumps(drawn)}
        )
        with atomic_write(pool_file(folder, k), "wb") as handle:
            handle.write(blob)

    bar = tqdm(total=n, initial=n - len(missing), desc="synthetic pool", unit="image", disable=not progress)
    cores = torch.get_num_threads()
    with ThreadPoolExecutor(WORKERS, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        futures = [threads.submit(make, k) for k in missing]
        try:
            for future in futures:
                future.result()
                bar.update()
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
        finally:
            torch.set_num_threads(cores)
    bar.close()


def _mostly_parts(images: list[ndarray]) -> bool:
    """Whether most images have a background: one answer a category, where single images lie around the rule's limit."""
    return sum(not foreground_mask(image.astype(np.float32) / 255).all() for image in images) > len(images) / 2


def _extremes(folder: Path, n: int) -> dict[str, float]:
    low, high = np.inf, -np.inf
    for k in range(n):
        found = Pool("", folder, n, 0, 1).item(k)["map"]
        low, high = min(low, float(found.min())), max(high, float(found.max()))
    return {"low": low, "high": high}


class _Donors(Sequence[Any]):
    """The training images, read when asked for."""

    def __init__(self, train: Split, config: PNIConfig) -> None:
        self.train, self.config = train, config

    def __len__(self) -> int:
        return len(self.train)

    def __getitem__(self, i: Any) -> Any:
        return self.train.image(range(len(self))[i], self.config.geometry).permute(1, 2, 0).numpy()


def _materials(config: PNIConfig, train: Split) -> Materials:
    textures = [] if config.defect_textures == "builtin" else load_textures(config.defect_textures)
    patches = [] if config.defect_patches == "builtin" else load_patches(config.defect_patches)
    return Materials(donors=_Donors(train, config), textures=textures, patches=patches)


def _digest(materials: Materials) -> str:
    digest = hashlib.sha256()
    for part in (*materials.textures, *materials.patches):
        digest.update(f"{part.shape}".encode() + part.tobytes())
    return digest.hexdigest()
