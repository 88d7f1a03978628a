"""A category of a few small images on disk, and configurations that fit it in a fraction of a second."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pnilib.config import PNIConfig
from pnilib.data import Dataset, load_dataset

SIZE = 80, 64
"""px, width and height: not square, so that the two ways of resizing differ."""

WITHOUT_WEIGHTS: dict[str, Any] = dict(
    backbone="scattering", aggregation="pool", feature_norm="half_whiten", agg_patch=1, gate="hard"
)
SCATTERING = PNIConfig.profile("smoke").replace(
    **WITHOUT_WEIGHTS, image_resize=64, image_crop=64, dim=16, emb_ratio=0.15, dist_size=32, mlp_width=24,
    mlp_batch=128, calibration_images=3,
)  # fmt: skip
RESNET = PNIConfig(
    image_resize=64, image_crop=64, backbone="resnet18", weights="random", agg_patch=3, dim=24, emb_ratio=0.15,
    dist_size=32, patch=3, mlp_layers=2, mlp_width=24, mlp_epochs=3, mlp_batch=128, sigma=2.0,
    calibration_images=3,
)  # fmt: skip


def write_category(root: Path, n_train: int = 10, n_good: int = 2, n_bad: int = 2, seed: int = 0) -> Dataset:
    """Stripes that depend on the position, with noise; a bright block with its mask where it is bad."""
    rng = np.random.default_rng(seed)
    width, height = SIZE
    y, x = np.mgrid[:height, :width]
    for i in range(n_train + n_good + n_bad):
        pixels = 110 + 50 * np.sin(x / (3 + y // 32)) + 0.6 * y + rng.normal(0, 8, (height, width))
        folder = root / "part" / ("train/good" if i < n_train else "test/good" if i < n_train + n_good else "test/bad")
        folder.mkdir(parents=True, exist_ok=True)
        if folder.name == "bad":
            block = np.zeros((height, width), np.uint8)
            block[20 + 5 * (i % 2) : 33, 30:47] = 255
            pixels = np.where(block, 250, pixels)
            masks = root / "part/ground_truth/bad"
            masks.mkdir(parents=True, exist_ok=True)
            Image.fromarray(block).save(masks / f"{i:03}_mask.png")
        colours = np.stack([pixels, pixels[::-1], 255 - pixels], 2)
        Image.fromarray(colours.clip(0, 255).astype(np.uint8)).save(folder / f"{i:03}.png")
    return load_dataset("mvtec", root, "part")
