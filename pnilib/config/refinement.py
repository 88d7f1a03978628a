"""Settings of the pixelwise refinement: synthetic defects, network, training, fusion (paper sec. 3.3, 4.1, S2)."""

from dataclasses import dataclass
from typing import Any

from pnilib.config.fields import param

__all__ = ["REFINED_SETTINGS", "Refinement"]

REFINED_SETTINGS: dict[str, dict[str, Any]] = {
    "G": dict(defects="cutpaste"),
    "H": dict(defects="scar"),
    "I": dict(defects="cutpaste,scar"),
    "J": dict(defects="draem"),
    "K": dict(defects="manual"),
    "L": dict(refine_grad="off"),
    "PNI": {},
}
"""Table S7: setting E plus refinement, by what differs from PNI."""


@dataclass(frozen=True)
class Refinement:
    """Synthetic defects, network, training and fusion (paper sec. 3.3, 4.1, S2)."""

    defects: str = param(
        "cutpaste,scar,draem,manual",
        "generators, the same ratio each, or with weights as cutpaste:3,scar:1; `natural` is a fifth, ours (B36)",
        "defects",
        "sec. 3.3",
    )
    defect_area: str = param(
        "all",
        "`foreground`: only where the image differs from its own border's colour",
        "defects",
        "silent: all",
        choices=("all", "foreground"),
    )
    defect_textures: str = param(
        "builtin",
        "folder of texture images (DTD) for draem and manual, or the built-in procedural ones",
        "defects",
        "sec. 3.3, [32]",
    )
    defect_patches: str = param(
        "builtin", "folder of hand-drawn patches for manual, or the built-in ones", "defects", "S2"
    )
    pool_images: int = param(
        4000, "synthetic images a category in the training pool", "defects", "silent", low=2, high=1_000_000
    )
    pool_gb: float = param(
        8.0, "GB of disk a category's pool may take; fewer images if they need more", "defects", "ours", low=1e-3,
        high=10_000.0,
    )  # fmt: skip
    pool_clean: float = param(
        0.0, "share of the pool without a defect (DRAEM: half)", "defects", "silent", low=0.0, high=0.9
    )
    pool_maps: str = param(
        "held_out",
        "who draws the pool's maps: `fitted` = the model fitted on the very images; `leave_out` = it, without the "
        "image's own coreset vectors; `held_out` = models fitted on the other folds (cross-fitting)",
        "defects",
        "silent",
        choices=("fitted", "leave_out", "held_out"),
    )
    pool_folds: int = param(3, "folds of pool_maps=held_out", "defects", "ours", low=2, high=100)
    refine_growth: int = param(48, "growth rate; 48 is DenseNet-161", "refinement", "sec. 3.3", low=1, high=256)
    refine_blocks: str = param("6,12,36,24", "layers of the four dense blocks", "refinement", "sec. 3.3")
    refine_stem_width: int = param(96, "channels of the first convolution", "refinement", "sec. 3.3", low=1, high=512)
    refine_decoder: int = param(
        768, "channels the decoder starts with; halved five times", "refinement", "S2", low=32, high=4096
    )
    refine_decoder_norm: str = param(
        "none",
        "batch normalization after each decoder convolution; narrow decoders need it, or all their ReLUs may die",
        "refinement",
        "silent: released none",
        choices=("none", "batch"),
    )
    refine_weights: str = param(
        "imagenet", "of the encoder: `imagenet` (torchvision's download), `random`, or a file", "refinement", "[16]"
    )
    refine_skips: str = param(
        "none",
        "`unet`: each decoder step also sees the encoder's features, and in the end the input, at its resolution",
        "refinement",
        "ours; the paper has none",
        choices=("none", "unet"),
    )
    refine_loss: str = param(
        "l2",
        "l2 = eq. (10); mse = squared error (B33, released); ce, focal = Table 4's alternatives",
        "refinement",
        "eq. (10)",
        choices=("l2", "mse", "ce", "focal"),
    )
    refine_grad: str = param(
        "on", "gradient loss, eq. (11); off = setting L", "refinement", "eq. (11)", choices=("on", "off")
    )
    refine_iterations: int = param(55_000, "iterations", "refinement", "sec. 4.1", low=1, high=10_000_000)
    refine_batch: int = param(8, "images an iteration", "refinement", "sec. 4.1", low=1, high=4096)
    refine_lr: float = param(1e-4, "Adam learning rate", "refinement", "sec. 4.1", low=1e-8, high=1.0)
    refine_crop: int = param(
        0,
        "px, side of the crops that train, each with some of the defect; 0 = whole images",
        "refinement",
        "silent: whole",
        low=0,
        high=4096,
    )
    refine_rotation: float = param(
        5.0, "degrees, random rotation up to", "refinement", "silent: released 5", low=0.0, high=180.0
    )
    refine_jitter_size: float = param(
        0.4, "each factor is drawn from 1 - size ... 1 + size", "refinement", "silent: released 0.4", low=0.0, high=0.9
    )
    refine_precision: str = param(
        "fp32", "arithmetic of the refinement's training", "refinement", "silent", choices=("fp32", "bf16")
    )
    refine_scope: str = param(
        "category",
        "one network per category, or one for all categories of the run (B38, released)",
        "refinement",
        "silent",
        choices=("category", "all"),
    )
    refine_weight: float = param(
        0.1, "share of the refined map in the final one", "fusion", "sec. 4.1", low=0.0, high=1.0
    )
