"""Miniatures of MVTec AD, BTAD and VisA: their folders and category names, pictures of a few pixels.

    python data_prep/miniatures.py data/miniatures --categories 1
    pni reproduce --data mvtec=data/miniatures/mvtec --data btad=data/miniatures/btad \\
        --data visa=data/miniatures/visa --seeds 1 --out results/dry --store runs/dry DRY_RUN

DRY_RUN stands for what the script prints: the paper's profile with the real backbones, random weights and everything
small.  Every table and figure then comes out of nothing but the layouts: a rehearsal before days of computing.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image

from pnilib.published import PAPER_COUNTS

SIZE = 72, 64  # px, width and height: not square
DRY_RUN = {
    "weights": "random", "refine_weights": "random", "image_resize": 64, "image_crop": 64, "dim": 32, "emb_ratio": 0.2,
    "dist_size": 32, "patch": 3, "mlp_layers": 3, "mlp_width": 32, "mlp_epochs": 1, "mlp_batch": 128, "sigma": 2,
    "calibration_images": 2, "pool_images": 8, "pool_folds": 2, "refine_iterations": 2, "refine_batch": 4,
}  # fmt: skip


def picture(rng: np.random.Generator, defective: bool) -> tuple[np.ndarray, np.ndarray]:
    """Stripes that depend on the position, with noise, and a bright block with its mask where it is defective."""
    width, height = SIZE
    y, x = np.mgrid[:height, :width]
    grey = 110 + 50 * np.sin(x / (3 + y // 32)) + 0.6 * y + rng.normal(0, 8, (height, width))
    mask = np.zeros((height, width), bool)
    if defective:
        top, left = rng.integers(8, 40, 2)
        mask[top : top + 14, left : left + 16] = True
    image = np.stack([grey, grey[::-1], 255 - grey], 2)
    image[mask] = 250
    return image.clip(0, 255).astype(np.uint8), mask


def save(pixels: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def folders(root: Path, category: str, good: str, bad: str, masks: str, rng: np.random.Generator) -> None:
    """MVTec AD's form, and BTAD's, whose names differ."""
    for i in range(10):
        split, defective = ("train", False) if i < 5 else ("test", i >= 7)
        image, mask = picture(rng, defective)
        name = f"{i:03}.png"
        save(image, root / category / split / (bad if defective else good) / name)
        if defective:
            save(mask.astype(np.uint8) * 255, root / category / "ground_truth" / bad / masks.format(f"{i:03}"))


def visa(root: Path, categories: list[str], rng: np.random.Generator) -> None:
    """VisA's form: images by label, and the table of the one-class split."""
    lines = []
    for category in categories:
        for i in range(10):
            split, defective = ("train", False) if i < 5 else ("test", i >= 7)
            image, mask = picture(rng, defective)
            label, kind = ("anomaly", "Anomaly") if defective else ("normal", "Normal")
            path = save(image, root / category / "Data/Images" / kind / f"{i:03}.JPG")
            masked = ""
            if defective:
                masked = save(mask.astype(np.uint8) * 255, root / category / "Data/Masks/Anomaly" / f"{i:03}.png")
                masked = masked.relative_to(root).as_posix()
            lines.append([category, split, label, path.relative_to(root).as_posix(), masked])
    table = root / "split_csv" / "1cls.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    with open(table, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerows([["object", "split", "label", "image", "mask"], *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="folder to make them in")
    parser.add_argument(
        "--categories", type=int, default=0, help="of each data set, one an object and one a texture; 0: all"
    )
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    names = {role: list(found) for role, found in PAPER_COUNTS.items()}
    if options.categories:
        names["mvtec"].sort(key=lambda name: name not in ("bottle", "tile"))
        names = {role: found[: options.categories] for role, found in names.items()}
    for category in names["mvtec"]:
        folders(options.root / "mvtec", category, "good", "bad", "{}_mask.png", rng)
    for category in names["btad"]:
        folders(options.root / "btad", category, "ok", "ko", "{}.png", rng)
    visa(options.root / "visa", names["visa"], rng)
    print(" ".join(f"--set {name}={value}" for name, value in DRY_RUN.items()))


if __name__ == "__main__":
    main()
