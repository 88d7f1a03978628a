"""Training samples: two normal images, augmented, one pasted on the other, with its label.

"objects loaded at 256, CenterCrop 230, RandomCrop 224; bottle, hazelnut, metal_nut, screw also RandomRotation(5) first;
textures loaded at 264, vertical flip, RandomCrop 256" (PAPER_AUDIT section D).  Other sizes in proportion; turned
images are mirrored at their border, which the centre crop hides.

Sample i of epoch e depends on the seed, e and i alone.  The source is any other image; in the released code it is the
one that the same loader fetched before.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from jaxtyping import Float32, UInt8
from numpy import ndarray
from torch import Tensor
from torch.utils.data import Dataset

from pnilib.data import Split
from pnilib.nsa.config import NSAConfig
from pnilib.synthesis.natural import Pasted, paste
from pnilib.synthesis.nsa_labels import label_map
from pnilib.synthesis.nsa_tasks import ClassRules

__all__ = ["Samples", "augmented", "load_images", "loaded_size"]


def loaded_size(config: NSAConfig, rules: ClassRules) -> int:
    """px; side at which training images are loaded: a texture's leaves room for the random crop."""
    return config.size + round(config.size * 8 / 256) if rules.texture else config.size


def load_images(train: Split, config: NSAConfig, rules: ClassRules) -> list[UInt8[ndarray, "s s 3"]]:
    """All training images, 8 bits, RGB.  Raises PNIError for one that cannot be read."""
    from pnilib.config.geometry import Geometry

    side = loaded_size(config, rules)
    geometry = Geometry(side, side)
    return [
        np.ascontiguousarray((train.image(i, geometry).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
        for i in range(len(train))
    ]


def augmented(
    image: UInt8[ndarray, "s s 3"], config: NSAConfig, rules: ClassRules, rng: np.random.Generator
) -> UInt8[ndarray, "c c 3"]:
    """The module docstring's augmentation; c = config.crop(rules)."""
    side, crop = image.shape[0], config.crop(rules)
    if rules.texture:
        if rng.random() < 0.5:
            image = image[::-1]
        low, high = 0, side - crop
    else:
        if rules.turn:
            middle = ((side - 1) / 2, (side - 1) / 2)
            turn = cv2.getRotationMatrix2D(middle, float(rng.uniform(-rules.turn, rules.turn)), 1.0)
            image = cv2.warpAffine(image, turn, (side, side), borderMode=cv2.BORDER_REFLECT_101)
        centre = crop + round((side - crop) * 6 / 32)  # 230 of 256
        low = (side - centre) // 2
        high = low + centre - crop
    top, left = rng.integers(low, high + 1, 2)
    return np.ascontiguousarray(image[top : top + crop, left : left + crop])


class Samples(Dataset[tuple[Tensor, Tensor, int]]):
    """Sample i: image (3, c, c) uint8, label (1, c, c), patches that found no place."""

    def __init__(
        self, images: Sequence[UInt8[ndarray, "s s 3"]], config: NSAConfig, rules: ClassRules, epoch: int
    ) -> None:
        self.images, self.config, self.rules, self.epoch = images, config, rules, epoch

    def __len__(self) -> int:
        return len(self.images)

    def draw(self, i: int) -> tuple[UInt8[ndarray, "c c 3"], Pasted, Float32[ndarray, "c c"]]:
        """The image before, what was pasted, and its label."""
        rng = np.random.default_rng((self.config.seed, self.epoch, i))
        n, task = len(self.images), self.config.patch_task
        j = (i + 1 + int(rng.integers(n - 1))) % n if n > 1 else i
        image, source = (augmented(self.images[k], self.config, self.rules, rng) for k in (i, j))
        pasted = paste(image, source, task, self.rules, rng)
        return image, pasted, label_map(task.label, image, pasted.image, pasted.region, pasted.factor, self.rules)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, int]:
        _, pasted, label = self.draw(i)
        return torch.from_numpy(pasted.image).movedim(2, 0), torch.from_numpy(label)[None], pasted.lost
