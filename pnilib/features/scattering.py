"""The embedded backbone: local contrast normalisation and two-order Morlet scattering.

No weights: fixed wavelets take the place of learnt filters (not in the paper, which uses ImageNet
networks; sec. 2 only asks for a hierarchy of feature maps).  Luminance Y is contrast-normalised,

    x = (Y - G*Y) / (sd_G(Y) + 0.03),     G a Gaussian of 12 px,

and goes down a pyramid of octaves j = 0 ... 3.  With psi_k a complex Morlet wavelet of orientation k
and D "blur by 0.8 px, then average 2 x 2",

    first order   U_j,k     = |psi_k * D^j x|
    second order  U_j,k,i,l = |psi_l * D^(i-j) U_j,k|,   i > j.

Everything is averaged to stride 8 (octaves 0-2) or 16 (octave 3, and the first order again) and its
square root taken.  Two opponent colours, not contrast-normalised, add their local mean and their first
order: a gray image leaves these channels at 0.  Meant to be pooled over 3 x 3 cells (agg_patch = 3) and
standardised (feature_norm).
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Scattering", "gaussian_matrix", "halving_matrix", "mirror", "morlet_bank", "normalise_contrast"]

OCTAVES = 4
ORIENTATIONS = 6
CONTRAST_SIGMA = 12.0  # px
CONTRAST_FLOOR = 0.03  # in units of luminance, which lies in [0, 1]
STRIDE = 16  # of the coarser level; the finer one has half of it
COLOUR_OCTAVES = 3  # first order of the opponent colours, octaves 0 ... 2


def mirror(n: int, low: int, high: int) -> Tensor:
    """Indices `low ... high-1` folded into `0 ... n-1` (edge samples repeat), for any distance."""
    folded = torch.arange(low, high).remainder(2 * n)
    return torch.minimum(folded, 2 * n - 1 - folded)


@lru_cache(maxsize=64)
def gaussian_matrix(n: int, sigma: float, device: torch.device) -> Float[Tensor, "{n} {n}"]:
    """Matrix that blurs a signal of n samples: Gaussian of `sigma` samples, mirrored ends, rows sum to 1."""
    radius = math.ceil(4 * sigma)
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    weights /= weights.sum()
    matrix = torch.zeros(n, n, dtype=torch.float64)
    for row in range(n):
        matrix[row].index_add_(0, mirror(n, row - radius, row + radius + 1), weights)
    return matrix.float().to(device)


@lru_cache(maxsize=64)
def halving_matrix(n: int, device: torch.device) -> Float[Tensor, "{n//2} {n}"]:
    """Matrix of one pyramid step along one axis: blur by 0.8 samples, then mean of pairs (n even)."""
    blur = gaussian_matrix(n, 0.8, torch.device("cpu"))
    return (0.5 * (blur[0::2] + blur[1::2])).to(device)


def morlet_bank(
    orientations: int = ORIENTATIONS,
    sigma: float = 1.2,
    omega: float = 1.65,
    slant: float = 0.6,
    radius: int = 4,
) -> Float[Tensor, "{2*orientations} 1 k k"]:
    """Real parts, then imaginary parts, of Morlet wavelets at orientations pi k/L, k = 0 ... L-1.

    psi(u) = exp(-(u1^2 + slant^2 u2^2) / (2 sigma^2)) (exp(i omega u1) - beta), u rotated by the
    orientation; beta makes the sum zero, so that a constant image gives 0.  Scaled to sum |psi| = 1.
    """
    line = torch.arange(-radius, radius + 1, dtype=torch.float64)
    rows, cols = torch.meshgrid(line, line, indexing="ij")
    wavelets = []
    for k in range(orientations):
        angle = math.pi * k / orientations
        along = cols * math.cos(angle) + rows * math.sin(angle)
        across = rows * math.cos(angle) - cols * math.sin(angle)
        envelope = torch.exp(-(along**2 + (slant * across) ** 2) / (2 * sigma**2))
        wave = torch.polar(envelope, omega * along)
        wave = wave - envelope * (wave.sum() / envelope.sum())
        wavelets.append(wave / wave.abs().sum())
    bank = torch.stack(wavelets)
    return torch.cat([bank.real, bank.imag]).float()[:, None]


def _blur(maps: Float[Tensor, "n h w"], sigma: float) -> Float[Tensor, "n h w"]:
    rows, cols = (gaussian_matrix(side, sigma, maps.device) for side in maps.shape[1:])
    return rows @ maps @ cols.T


def _halve(maps: Float[Tensor, "n h w"]) -> Float[Tensor, "n h//2 w//2"]:
    rows, cols = (halving_matrix(side, maps.device) for side in maps.shape[1:])
    return rows @ maps @ cols.T


def normalise_contrast(luminance: Float[Tensor, "1 h w"]) -> Float[Tensor, "1 h w"]:
    centred = luminance - _blur(luminance, CONTRAST_SIGMA)
    spread = _blur(centred**2, CONTRAST_SIGMA).clamp(min=0).sqrt()
    return centred / (spread + CONTRAST_FLOOR)


def _pad(maps: Float[Tensor, "n h w"], top: int, bottom: int, left: int, right: int) -> Tensor:
    height, width = maps.shape[1:]
    rows = mirror(height, -top, height + bottom).to(maps.device)
    cols = mirror(width, -left, width + right).to(maps.device)
    return maps[:, rows][:, :, cols]


class Scattering(nn.Module):
    """Images -> two levels of features at strides 8 and 16.  Deterministic, without weights."""

    def __init__(self, colour: bool = True) -> None:
        super().__init__()
        self.colour = colour
        self.bank: Tensor
        self.register_buffer("bank", morlet_bank(), persistent=False)

    @staticmethod
    def grid(side: int) -> int:
        """Cells along a side of `side` px, at stride 8."""
        return 2 * math.ceil(side / STRIDE)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Levels (b, c_l, 2g, 2g') and (b, c_l, g, g') of images in [0, 1], g = ceil(h/16).

        Sides that are no multiple of 16 are mirrored outwards, half at each end.  Images go one by
        one, so a result does not depend on its batch and memory not on the batch size.
        """
        levels = [self._one(image) for image in images]
        return [torch.stack(level) for level in zip(*levels, strict=True)]

    def _one(self, image: Float[Tensor, "3 h w"]) -> tuple[Tensor, Tensor]:
        missing = [-side % STRIDE for side in image.shape[1:]]
        if any(missing):
            image = _pad(image, *(part for m in missing for part in (m // 2, m - m // 2)))
        red, green, blue = image
        luminance = (0.299 * red + 0.587 * green + 0.114 * blue)[None]
        fine, coarse = self._scatter(normalise_contrast(luminance))
        if self.colour:
            opponents = torch.stack([red - green, 0.5 * (red + green) - blue])
            colour_fine, colour_coarse = self._first_order(opponents)
            fine, coarse = fine + colour_fine, coarse + colour_coarse
        return torch.cat(fine), torch.cat(coarse)

    def _modulus(self, maps: Float[Tensor, "n h w"]) -> Float[Tensor, "n_moduli h w"]:
        """Wavelet moduli of every map, n outermost."""
        if not bool(maps.any()):  # the colour of a gray image: nothing to filter
            return maps.new_zeros(len(maps) * ORIENTATIONS, *maps.shape[1:])
        radius = self.bank.shape[-1] // 2
        waves = F.conv2d(_pad(maps, radius, radius, radius, radius)[:, None], self.bank)
        real, imag = waves.chunk(2, dim=1)
        return (real**2 + imag**2).sqrt().flatten(0, 1)

    def _scatter(self, lowpass: Float[Tensor, "1 h w"]) -> tuple[list[Tensor], list[Tensor]]:
        fine: list[Tensor] = []
        coarse: list[Tensor] = []
        maps = lowpass  # row 0: the image; then the first-order maps of all finer octaves
        for octave in range(OCTAVES):
            stride = 2**octave
            moduli = self._modulus(maps)
            if octave < OCTAVES - 1:
                fine.append(_averaged(moduli, 8 // stride))
                coarse.append(_averaged(moduli[:ORIENTATIONS], 16 // stride))
                maps = _halve(torch.cat([maps, moduli[:ORIENTATIONS]]))
            else:
                coarse.append(_averaged(moduli, 16 // stride))
        fine.append(F.avg_pool2d(lowpass, 8))
        coarse.append(F.avg_pool2d(lowpass, 16))
        return fine, coarse

    def _first_order(self, maps: Float[Tensor, "n h w"]) -> tuple[list[Tensor], list[Tensor]]:
        fine = [F.avg_pool2d(maps, 8)]
        coarse = [F.avg_pool2d(maps, 16)]
        for octave in range(COLOUR_OCTAVES):
            fine.append(_averaged(self._modulus(maps), 8 // 2**octave))
            maps = _halve(maps)
        return fine, coarse


def _averaged(moduli: Float[Tensor, "n h w"], width: int) -> Tensor:
    """Square root of the means over width x width pixels."""
    return F.avg_pool2d(moduli, width).sqrt()
