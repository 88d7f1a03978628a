"""Images, anomaly maps over them, defect outlines and crops of patches.

A map is drawn on limits that the caller gives, one pair a comparison (`common_limits`): a map stretched
to its own minimum and maximum paints good parts red.  `Axes` in, `Axes` out; nothing is saved.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from numpy import ndarray
from torch import Tensor

from pnilib.errors import PNIError

__all__ = [
    "OUTLINE",
    "cell_box",
    "color_bar",
    "common_limits",
    "crop_patch",
    "draw_outline",
    "show_crops",
    "show_image",
    "show_map",
]

OUTLINE = "#00e5ff"
"""Colour of defect outlines: cyan lies on none of the colour maps used here."""


def show_image(
    image: Float[Tensor, "3 h w"], ax: Axes, *, mask: Bool[Tensor, "h w"] | None = None, title: str = ""
) -> Axes:
    """RGB in [0, 1]; with `mask`, the outline of the true defect over it."""
    ax.imshow(image.permute(1, 2, 0).clamp(0, 1).cpu().numpy(), interpolation="nearest")
    return _finish(ax, mask, title)


def show_map(
    anomaly_map: Float[Tensor, "h w"] | Float[ndarray, "h w"],
    ax: Axes,
    *,
    limits: tuple[float, float],
    image: Float[Tensor, "3 h w"] | None = None,
    mask: Bool[Tensor, "h w"] | None = None,
    title: str = "",
    cmap: str = "magma",
    opacity: float = 0.7,
) -> Axes:
    """An anomaly map between `limits` (scores; the same pair for all panels of a comparison).

    With `image`, the map lies over its grey version; `opacity` is that of the map then.
    """
    if image is not None:
        grey = image.mean(0).cpu().numpy()
        ax.imshow(grey, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    low, high = limits
    ax.imshow(
        np.asarray(anomaly_map), cmap=cmap, vmin=low, vmax=high,
        alpha=1.0 if image is None else opacity, interpolation="nearest",
    )  # fmt: skip
    return _finish(ax, mask, title)


def common_limits(maps: Sequence[Float[ndarray, "..."]] | Float[ndarray, "..."]) -> tuple[float, float]:
    """Smallest and largest value over all maps: the one colour scale of a comparison."""
    return min(float(np.min(m)) for m in maps), max(float(np.max(m)) for m in maps)


def color_bar(axes: Axes | Sequence[Axes], limits: tuple[float, float], label: str, cmap: str = "magma") -> Colorbar:
    """The colour bar of panels drawn with `limits`; `label` names quantity and unit."""
    panels = [axes] if isinstance(axes, Axes) else list(axes)
    shades = ScalarMappable(Normalize(*limits), cmap)
    return panels[0].figure.colorbar(shades, ax=panels, label=label, fraction=0.05, pad=0.02)


def draw_outline(mask: Bool[Tensor, "h w"], ax: Axes, color: str = OUTLINE) -> Axes:
    """Outline of a defect mask, also where it meets the image's border; nothing for an empty mask."""
    if bool(mask.any()):
        padded = np.pad(mask.cpu().numpy().astype(float), 1)
        rows, columns = (np.arange(-1, side + 1) for side in mask.shape)
        ax.contour(columns, rows, padded, levels=[0.5], colors=[color], linewidths=1.3)
        ax.set_xlim(-0.5, mask.shape[1] - 0.5)  # contour shows its padding
        ax.set_ylim(mask.shape[0] - 0.5, -0.5)
    return ax


def cell_box(cell_idx: int, grid: tuple[int, int], size: int) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) in px of one flat, row-major grid cell of a size x size image.

    Raises PNIError for a cell outside the grid.
    """
    gh, gw = grid
    if not 0 <= cell_idx < gh * gw:
        raise PNIError(f"cell {cell_idx} lies outside a {gh}x{gw} grid: choose 0 to {gh * gw - 1}")
    row, column = divmod(cell_idx, gw)
    return row * size // gh, column * size // gw, (row + 1) * size // gh, (column + 1) * size // gw


def crop_patch(
    image: Float[Tensor, "3 h w"], cell_idx: int, grid: tuple[int, int], *, context: int = 1
) -> Float[Tensor, "3 k k"]:
    """The pixels of one cell and of `context` cells on each side; edge pixels repeat beyond the image."""
    size = image.shape[-1]
    top, left, bottom, right = cell_box(cell_idx, grid, size)
    height, width = (bottom - top) * context, (right - left) * context
    rows = torch.arange(top - height, bottom + height).clamp(0, size - 1)
    columns = torch.arange(left - width, right + width).clamp(0, size - 1)
    return image[:, rows][:, :, columns]


def show_crops(
    crops: Sequence[Float[Tensor, "3 k k"]], ax: Axes, *, columns: int = 8, labels: Sequence[str] = (), title: str = ""
) -> Axes:
    """Crops of one size as a contact sheet, row by row, on one Axes; `labels` go above them.

    Raises PNIError without crops.
    """
    if not crops:
        raise PNIError("there are no crops to show: give at least one")
    side = crops[0].shape[-1]
    gap_x, gap_y = max(2, side // 8), max(2, side // 8) + (side // 5 if labels else 0)
    n_rows = -(-len(crops) // columns)
    columns = min(columns, len(crops))
    sheet = np.ones((n_rows * (side + gap_y), columns * (side + gap_x) - gap_x, 3), dtype=np.float32)
    for k, crop in enumerate(crops):
        top, left = (k // columns) * (side + gap_y) + gap_y, (k % columns) * (side + gap_x)
        sheet[top : top + side, left : left + side] = crop.permute(1, 2, 0).clamp(0, 1).cpu().numpy()
        if labels:
            ax.text(left + side / 2, top - 1, labels[k], ha="center", va="bottom", fontsize=8)
    ax.imshow(sheet, interpolation="nearest")
    for spine in ax.spines.values():
        spine.set_visible(False)
    return _finish(ax, None, title)


def _finish(ax: Axes, mask: Bool[Tensor, "h w"] | None, title: str) -> Axes:
    if mask is not None:
        draw_outline(mask, ax)
    ax.set_xticks([])
    ax.set_yticks([])
    if title:
        ax.set_title(title, fontsize=10)
    return ax
