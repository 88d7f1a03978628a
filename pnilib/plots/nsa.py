"""What NSA's network sees, shall say, and says."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float32, UInt8
from matplotlib.figure import Figure
from numpy import ndarray

from pnilib.plots.images import color_bar, show_image, show_map

__all__ = ["draw_strip"]


def draw_strip(
    images: Sequence[UInt8[ndarray, "h w 3"]],
    rows: Mapping[str, Sequence[Float32[ndarray, "h w"]]],
    limits: tuple[float, float],
    *,
    title: str = "",
) -> Figure:
    """Pasted images above maps of them, row by row, all maps on one colour scale."""
    figure = Figure(figsize=(1.7 * len(images) + 1.1, 1.8 * (1 + len(rows)) + 0.3), layout="constrained")
    axes = figure.subplots(1 + len(rows), len(images), squeeze=False)
    for column, image in enumerate(images):
        show_image(torch.from_numpy(image).movedim(2, 0) / 255, axes[0, column])
        for line, maps in enumerate(rows.values(), start=1):
            show_map(maps[column], axes[line, column], limits=limits)
    for line, name in enumerate(["input", *rows]):
        axes[line, 0].set_ylabel(name)
    color_bar([ax for line in axes[1:] for ax in line], limits, "label")
    if title:
        figure.suptitle(title, fontsize=10)
    return figure
