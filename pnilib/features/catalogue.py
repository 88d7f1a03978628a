"""The usual backbones and what they cost: `pni backbones`."""

from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from pnilib.config import PNIConfig
from pnilib.errors import PNIError
from pnilib.features.backbones import empty_network, level_shapes
from pnilib.features.timm_networks import timm_name
from pnilib.features.torchvision_networks import TORCHVISION
from pnilib.features.weights import packaged_file

__all__ = ["KNOWN", "describe_backbones"]

KNOWN = (
    "tf_efficientnet_lite0",
    "tf_efficientnet_lite2",
    "scattering",
    *TORCHVISION,
    "convnext_tiny",
    "vit_small_patch14_reg4_dinov2",
    "vit_base_patch14_reg4_dinov2",
    "vit_small_patch16_dinov3",
)
"""What users of this kit and of its peers ask for; the paper's three among them."""


def describe_backbones(config: PNIConfig) -> list[dict[str, Any]]:
    """One row for each of KNOWN, at the configuration's image size, or a multiple of the patch below it.

    levels: channels @ cells of each; GFLOP: of one image up to the last level, two for a multiplication with addition.
    """
    rows = []
    for name in KNOWN:
        for side in (config.image_crop, config.image_crop // 14 * 14, config.image_crop // 16 * 16):
            own = config.replace(backbone=name, weights="imagenet", levels="auto", image_resize=side, image_crop=side)
            try:
                shapes = level_shapes(own)
                break
            except PNIError:
                continue
        else:
            continue
        origin, at_hand, licence = _origin(own)
        rows.append(
            {
                "name": name, "from": origin, "weights": at_hand, "image": side,
                "levels": " + ".join(f"{c}@{h}x{w}" for c, h, w in shapes), "GFLOP": _gflop(own), "licence": licence,
            }
        )  # fmt: skip
    return rows


def _origin(config: PNIConfig) -> tuple[str, str, str]:
    """Who has the network, whether its weights are here, and their licence."""
    if config.backbone == "scattering":
        return "pnilib", "needs none", "MIT"
    if config.backbone in TORCHVISION:
        from torchvision.models import get_model_weights  # seconds to import

        file = Path(get_model_weights(config.backbone)["IMAGENET1K_V1"].url).name
        cached = (Path(torch.hub.get_dir()) / "checkpoints" / file).is_file()
        return "torchvision", "downloaded" if cached else "to download", "BSD-3-Clause"
    import timm
    from huggingface_hub import try_to_load_from_cache

    name = timm_name(config)
    pretrained: Any = timm.get_pretrained_cfg(name)
    if packaged_file(name) is not None:
        return "timm", "installed", pretrained.license or "see its page"
    places = [(pretrained.hf_hub_id, file) for file in ("model.safetensors", "pytorch_model.bin")]
    cached = any(isinstance(try_to_load_from_cache(repo, file), str) for repo, file in places if repo)
    return "timm", "downloaded" if cached else "to download", pretrained.license or "see its page"


def _gflop(config: PNIConfig) -> float:
    if config.backbone == "scattering":
        return float("nan")  # Fourier transforms, which torch does not count
    network = empty_network(config)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, config.image_crop, config.image_crop))
    return round(counter.get_total_flops() / 1e9, 1)
