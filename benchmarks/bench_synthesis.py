"""Defect generators: samples per second of one core, against a straightforward way to draw the same defects.

    python benchmarks/bench_synthesis.py            192, 256 and 480 px
    python benchmarks/bench_synthesis.py --json     the same as one JSON object

Ours is `synthesize` with an 8-bit image: what training calls, exact mask and checks included.  The other side is
written here as one would write it first, and does less (no area, no exact mask: it claims what it pasted):
Cut-Paste and scar with Pillow and torchvision's ColorJitter; DRAEM with the usual NumPy Perlin noise (arrays of
gradients repeated over the image), SciPy's rotation and torchvision's augmentations; manual drawing with Pillow's
resize and rotate and eq. (S1) on whole images; natural with OpenCV's seamlessClone.  `NSA, logistic label` is
NSA's sampler with its label: the plain way takes SciPy's median over the disk of the whole image.  Both get the same
images, the same 16 texture images of 384 px and the same patches; `draem, no textures` (ours alone) draws its own.
Seconds are the processor's, one thread, the two sides in turn; the best of `--rounds`.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when NumPy loads

import argparse
import json
import math
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torchvision.transforms import v2

from pnilib.demo import render
from pnilib.synthesis import Materials, synthesize
from pnilib.synthesis.natural import paste
from pnilib.synthesis.nsa_labels import label_map
from pnilib.synthesis.nsa_tasks import CLASSES, TASKS
from pnilib.synthesis.patches import library
from pnilib.synthesis.textures import perlin_noise, procedural_texture

FOUR = ("cutpaste", "scar", "draem", "manual")
Sample = tuple[np.ndarray, np.ndarray]

JITTER = v2.ColorJitter(0.1, 0.1, 0.1, 0.1)
AUGMENTATIONS = [
    v2.ColorJitter(brightness=0.2),
    v2.ColorJitter(contrast=0.5),
    v2.ColorJitter(saturation=0.5),
    v2.ColorJitter(hue=0.2),
    v2.RandomAdjustSharpness(2, p=1),
    v2.RandomSolarize(80, p=1),
    v2.RandomPosterize(4, p=1),
    v2.RandomInvert(p=1),
    v2.RandomAutocontrast(p=1),
    v2.RandomEqualize(p=1),
]


def plain_cutpaste(image: np.ndarray, rng: np.random.Generator, materials: Materials) -> Sample:
    height, width = image.shape[:2]
    n_pixels = rng.uniform(0.02, 0.15) * height * width
    aspect = rng.uniform(*[(0.3, 1), (1, 3.3)][rng.integers(2)])
    h, w = round(math.sqrt(n_pixels / aspect)), round(math.sqrt(n_pixels * aspect))
    picture, mask = Image.fromarray(image), Image.new("L", (width, height))
    x, y, to_x, to_y = (int(rng.integers(room + 1)) for room in (width - w, height - h, width - w, height - h))
    picture.paste(JITTER(picture.crop((x, y, x + w, y + h))), (to_x, to_y))
    mask.paste(255, (to_x, to_y, to_x + w, to_y + h))
    return np.array(picture), np.array(mask) > 0


def plain_scar(image: np.ndarray, rng: np.random.Generator, materials: Materials) -> Sample:
    height, width = image.shape[:2]
    w, h = (round(rng.uniform(*span) * min(height, width) / 256) for span in ((2, 16), (10, 25)))
    picture, mask = Image.fromarray(image), Image.new("L", (width, height))
    x, y = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
    strip = JITTER(picture.crop((x, y, x + w, y + h))).convert("RGBA").rotate(rng.uniform(-45, 45), expand=True)
    corner = int(rng.integers(width - strip.width + 1)), int(rng.integers(height - strip.height + 1))
    picture.paste(strip, corner, strip.getchannel("A"))
    mask.paste(strip.getchannel("A"), corner)
    return np.array(picture), np.array(mask) > 0


def plain_perlin(shape: tuple[int, int], cells: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """The usual NumPy form; `shape` must be a multiple of `cells`."""
    period = shape[0] // cells[0], shape[1] // cells[1]
    angles = 2 * np.pi * rng.random((cells[0] + 1, cells[1] + 1))
    gradients = np.dstack([np.sin(angles), np.cos(angles)])
    grid = np.stack(np.meshgrid(*(np.arange(n) / p % 1 for n, p in zip(shape, period, strict=True)), indexing="ij"), 2)
    fade = 6 * grid**5 - 15 * grid**4 + 10 * grid**3
    noise = np.zeros(shape)
    for i in (0, 1):
        for j in (0, 1):
            corner = gradients[i : cells[0] + i, j : cells[1] + j].repeat(period[0], 0).repeat(period[1], 1)
            ramp = ((grid - (i, j)) * corner).sum(axis=2)
            weight_y = fade[..., 0] if i else 1 - fade[..., 0]
            weight_x = fade[..., 1] if j else 1 - fade[..., 1]
            noise += weight_y * weight_x * ramp
    return math.sqrt(2) * noise


def plain_draem(image: np.ndarray, rng: np.random.Generator, materials: Materials) -> Sample:
    shape = image.shape[:2]
    noise = plain_perlin(shape, (2 ** int(rng.integers(6)), 2 ** int(rng.integers(6))), rng)
    mask = ndimage.rotate(noise, rng.uniform(-90, 90), reshape=False, order=1) > 0.5
    texture = materials.textures[rng.integers(len(materials.textures))]
    source = Image.fromarray((texture * 255).astype(np.uint8)).resize(shape[::-1], Image.Resampling.BILINEAR)
    for i in rng.choice(len(AUGMENTATIONS), 3, replace=False):
        source = AUGMENTATIONS[i](source)
    beta = rng.uniform(0, 0.8)
    opaque = mask[..., None].astype(np.float32)
    clean, foreign = image.astype(np.float32), np.asarray(source, np.float32)
    return ((1 - opaque) * clean + opaque * ((1 - beta) * foreign + beta * clean)).round().astype(np.uint8), mask


def plain_manual(image: np.ndarray, rng: np.random.Generator, materials: Materials) -> Sample:
    height, width = image.shape[:2]
    opacity = np.zeros((height, width), np.float32)
    for _ in range(rng.integers(1, 6)):
        patch = Image.fromarray(materials.patches[rng.integers(len(materials.patches))])
        scale = max(6.0, math.exp(rng.uniform(math.log(0.05), math.log(0.5))) * min(height, width)) / max(patch.size)
        patch = patch.resize((max(1, round(patch.width * scale)), max(1, round(patch.height * scale))))
        patch = patch.rotate(rng.uniform(0, 360), Image.Resampling.BILINEAR, expand=True)
        layer = Image.new("F", (width, height))
        layer.paste(patch, (int(rng.integers(-patch.width // 2, width)), int(rng.integers(-patch.height // 2, height))))
        opacity = np.maximum(opacity, np.asarray(layer) * np.float32(rng.uniform(0.4, 1.0)))
    clean, a, kind = image.astype(np.float32) / 255, opacity[..., None], rng.integers(3)
    if kind == 0:
        foreign = rng.random(3) + 0.02 * rng.standard_normal(clean.shape)
    elif kind == 1:
        foreign = clean + rng.uniform(-0.5, 0.5, 3)
    else:
        texture = Image.fromarray((materials.textures[rng.integers(len(materials.textures))] * 255).astype(np.uint8))
        foreign = np.asarray(texture.resize((width, height)), np.float32) / 255
    new = (1 - a) * clean + a * np.clip(foreign, 0, 1)
    return (new * 255).round().astype(np.uint8), opacity > 0


def plain_natural(image: np.ndarray, rng: np.random.Generator, materials: Materials) -> Sample:
    sides, new = np.array(image.shape[:2]), image
    for count in range(3):
        if count and rng.random() < 0.5:
            break
        size = np.maximum(8, (2 * np.clip(0.03 + rng.gamma(2, 0.05, 2), 0.03, 0.4) * sides).astype(int))
        (top, left), (to_y, to_x) = rng.integers(0, sides - size + 1), rng.integers(0, sides - size + 1)
        patch = image[top : top + size[0], left : left + size[1]]
        inner = np.zeros(size, np.uint8)
        inner[1:-1, 1:-1] = 255
        centre = int(to_x + size[1] // 2), int(to_y + size[0] // 2)
        new = cv2.seamlessClone(patch, new, inner, centre, cv2.MIXED_CLONE)
    return new, cv2.medianBlur((cv2.absdiff(new, image).mean(axis=2) > 1).astype(np.uint8), 5) > 0


def plain_nsa(image: np.ndarray, rng: np.random.Generator, materials: Materials) -> np.ndarray:
    new, mask = plain_natural(image, rng, materials)
    y, x = np.mgrid[-5:6, -5:6]
    difference = np.abs(new.astype(np.float32) - image).mean(axis=2)
    median = ndimage.median_filter(difference, footprint=y * y + x * x <= 25)
    return mask / (1 + np.exp(-(median - 7) / 3))


def our_nsa(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    pasted = paste(image, image, TASKS["nsa-logistic"], CLASSES["mvtec/carpet"], rng)
    return label_map("logistic", image, pasted.image, pasted.region, pasted.factor, CLASSES["mvtec/carpet"])


PLAIN: dict[str, Callable[[np.ndarray, np.random.Generator, Materials], Sample]] = {
    "cutpaste": plain_cutpaste,
    "scar": plain_scar,
    "draem": plain_draem,
    "manual": plain_manual,
    "natural": plain_natural,
}


def seconds_each(work: list[Callable[[int], Any]], n: int, rounds: int) -> list[float]:
    """Processor seconds of one call of each, given the seeds 0 ... n - 1; in turn; the best round."""
    best = [math.inf] * len(work)
    for _ in range(rounds):
        for k, function in enumerate(work):
            function(0)
            start = time.process_time()
            for seed in range(n):
                function(seed)
            best[k] = min(best[k], (time.process_time() - start) / n)
    return best


def measure(side: int, n: int, rounds: int) -> dict[str, dict[str, float]]:
    """Samples per processor second by row and party."""
    images = [render(name, "train", "good", i, size=side).image for i in (0, 1) for name in ("gear", "weave", "grain")]
    rng = np.random.default_rng(0)
    textures = [procedural_texture((384, 384), rng) for _ in range(16)]
    materials = Materials(textures=textures, patches=library())
    bare = Materials(patches=library())

    def ours(kind: str, given: Materials) -> Callable[[int], Any]:
        return lambda seed: synthesize(images[seed % len(images)], kind, seed, materials=given)

    def plain(kind: str) -> Callable[[int], Any]:
        return lambda seed: PLAIN[kind](images[seed % len(images)], np.random.default_rng(seed), materials)

    spent: dict[str, dict[str, float]] = {}
    for kind in PLAIN:
        both = seconds_each([ours(kind, materials), plain(kind)], n, rounds)
        spent[kind] = dict(zip(("ours", "plain"), both, strict=True))
    both = seconds_each(
        [
            lambda seed: our_nsa(images[seed % len(images)], np.random.default_rng(seed)),
            lambda seed: plain_nsa(images[seed % len(images)], np.random.default_rng(seed), materials),
        ],
        n,
        rounds,
    )
    spent["NSA, logistic label"] = dict(zip(("ours", "plain"), both, strict=True))
    spent["four, equal shares"] = {who: sum(spent[kind][who] for kind in FOUR) / 4 for who in ("ours", "plain")}
    spent["draem, no textures"] = {"ours": seconds_each([ours("draem", bare)], n, rounds)[0]}
    both = seconds_each(
        [
            lambda seed: perlin_noise((side, side), (32, 32), np.random.default_rng(seed)),
            lambda seed: plain_perlin((side, side), (32, 32), np.random.default_rng(seed)),
        ],
        n,
        rounds,
    )
    spent["Perlin noise alone, 32 x 32"] = dict(zip(("ours", "plain"), both, strict=True))
    return {row: {who: 1 / s for who, s in times.items()} for row, times in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[192, 256, 480], help="pixels; multiples of 32")
    parser.add_argument("--samples", type=int, default=60, help="calls a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if any(side < 64 or side % 32 for side in options.sides):
        parser.error("--sides: multiples of 32, from 64 (the usual Perlin noise needs whole cells)")
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    torch.manual_seed(0)  # of torchvision's jitter
    rates = {side: measure(side, options.samples, options.rounds) for side in options.sides}
    if options.json:
        print(json.dumps(rates))
        return
    print("samples per second of one core: ours / plain (ratio)\n")
    print("| generator | " + " | ".join(f"{side} px" for side in options.sides) + " |")
    print("|---|" + "---:|" * len(options.sides))
    for row in rates[options.sides[0]]:
        cells = []
        for side in options.sides:
            rate = rates[side][row]
            other = f" / {rate['plain']:.0f} ({rate['ours'] / rate['plain']:.1f})" if "plain" in rate else ""
            cells.append(f"{rate['ours']:.0f}{other}")
        print(f"| {row} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
