"""Pictures of features: wavelets, pooling, spectra, and features as colours.

`Axes` in, `Axes` out; nothing is saved.  `pca_rgb` fits one projection for all images that are compared,
so that equal colours mean equal features.
"""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from pnilib.errors import PNIError
from pnilib.features.normalization import moments

__all__ = ["draw_matrix", "draw_spectra", "pca_rgb", "show_wavelets"]

_STYLES = ("-", "--", ":", "-.")


def pca_rgb(features: Float[Tensor, "n gh gw d"], spread: float = 2.5) -> Float[Tensor, "n 3 gh gw"]:
    """The three leading principal components as red, green and blue, one projection for all n images.

    A component of +-`spread` standard deviations becomes 1 or 0.  Signs are fixed as in `half_whitening`.
    Raises PNIError for fewer than three channels.
    """
    if features.shape[-1] < 3:
        raise PNIError(f"features of {features.shape[-1]} channels make no three colours: give three or more")
    mean, covariance = moments([features])
    variances, vectors = torch.linalg.eigh(covariance)
    variances, vectors = variances.flip(0)[:3], vectors.flip(1)[:, :3]
    vectors = vectors * vectors[vectors.abs().argmax(0), torch.arange(3)].sign()
    scores = (features.double().cpu() - mean) @ vectors / variances.clamp(min=1e-300).sqrt()
    return (0.5 + scores / (2 * spread)).clamp(0, 1).permute(0, 3, 1, 2).float()


def show_wavelets(bank: Float[Tensor, "k 1 s s"], ax: Axes, *, title: str = "") -> Axes:
    """Filters side by side on one symmetric scale; zero is the middle of the colour map."""
    k, _, side, _ = bank.shape
    sheet = np.full((side, k * (side + 1) - 1), np.nan)
    for i in range(k):
        sheet[:, i * (side + 1) : i * (side + 1) + side] = bank[i, 0].cpu().numpy()
    peak = float(bank.abs().max())
    ax.imshow(sheet, cmap="cividis", vmin=-peak, vmax=peak, interpolation="nearest")
    ax.set_xticks([i * (side + 1) + side / 2 - 0.5 for i in range(k)], [str(i) for i in range(k)])
    ax.set_yticks([])
    ax.set_xlabel("orientation k, at 180 k / L degrees")
    ax.set_title(title, fontsize=10)
    return ax


def draw_matrix(weights: Float[Tensor, "d c"], ax: Axes, *, borders: tuple[int, ...] = (), title: str = "") -> Axes:
    """A linear map as a matrix, zero dark; vertical lines at `borders`, the first input channels of later levels."""
    ax.imshow(weights.cpu().numpy(), cmap="viridis", vmin=0, aspect="auto", interpolation="nearest")
    for border in borders:
        ax.axvline(border - 0.5, color="white", linestyle="--")
    ax.set_xlabel("input channel")
    ax.set_ylabel("embedding channel")
    ax.set_title(title, fontsize=10)
    return ax


def draw_spectra(spectra: Mapping[str, Float[Tensor, " k"]], ax: Axes, *, title: str = "") -> Axes:
    """Variances along principal directions, largest first, each spectrum divided by its first value."""
    for (name, variances), style in zip(spectra.items(), _STYLES * len(spectra), strict=False):
        relative = (variances / variances[0]).cpu().numpy()
        ax.semilogy(np.arange(1, len(relative) + 1), relative, style, label=name)
    ax.set_xlabel("principal direction")
    ax.set_ylabel("variance / largest variance")
    ax.set_ylim(1e-6, 2)
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, loc="upper right")
    ax.set_title(title, fontsize=10)
    return ax
