"""Scattering: wavelets by their defining properties, borders by hand, invariances of the features."""

import math

import pytest
import torch

from pnilib.features.scattering import (
    Scattering,
    gaussian_matrix,
    halving_matrix,
    mirror,
    morlet_bank,
    normalise_contrast,
)

CPU = torch.device("cpu")


def grating(angle: float, omega: float, size: int = 96) -> torch.Tensor:
    """Gray image of waves that run along `angle`, `omega` rad/px."""
    rows, cols = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    waves = 0.5 + 0.4 * torch.cos(omega * (cols * math.cos(angle) + rows * math.sin(angle)))
    return waves.expand(1, 3, size, size)


def random_image(height: int = 64, width: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_mirror_folds_by_hand() -> None:
    assert mirror(3, -4, 8).tolist() == [2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1]
    assert mirror(1, -2, 3).tolist() == [0] * 5


def test_gaussian_matrix_keeps_constants_and_spreads_by_sigma() -> None:
    matrix = gaussian_matrix(101, 3.0, CPU).double()
    torch.testing.assert_close(matrix.sum(1), torch.ones(101).double(), rtol=0, atol=1e-6)
    offsets = torch.arange(101).double() - 50
    assert float(matrix[50] @ offsets**2) == pytest.approx(9.0, rel=1e-3)


def test_halving_averages_pairs_of_blurred_samples() -> None:
    ramp = torch.arange(40.0)
    halved = halving_matrix(40, CPU) @ ramp
    torch.testing.assert_close(halved[4:-4], ramp.reshape(-1, 2).mean(1)[4:-4], rtol=0, atol=1e-5)


def test_wavelets_ignore_constants_and_answer_their_orientation() -> None:
    bank = morlet_bank().double()
    assert float(bank.sum((1, 2, 3)).abs().max()) < 1e-7
    torch.testing.assert_close(bank.square().sum((1, 2, 3))[0], bank.square().sum((1, 2, 3))[3], rtol=1e-4, atol=0)
    for k in range(6):
        waves = grating(math.pi * k / 6, 1.65)[:, :1].double()
        moduli = torch.nn.functional.conv2d(waves, bank).reshape(2, 6, -1).square().sum(0).mean(1)
        assert int(moduli.argmax()) == k


def test_first_order_finds_orientation_at_each_octave() -> None:
    fine, coarse = Scattering()(grating(math.pi / 3, 1.65 / 2, size=128))
    assert int(fine[0, 6:12].mean((1, 2)).argmax()) == 2  # octave 1: rows 6-11 hold image x wavelets
    assert fine[0, 8].mean() > fine[0, 2].mean()
    assert coarse[0, 8].mean() > coarse[0, 2].mean()


def test_levels_have_the_shapes_of_the_recipe() -> None:
    luminance = Scattering(colour=False)(random_image(64, 48))
    assert [tuple(level.shape[1:]) for level in luminance] == [(127, 8, 6), (133, 4, 3)]  # 260 channels
    fine, coarse = Scattering()(random_image(70, 8))
    assert fine.shape[2:] == (10, 2) and coarse.shape[2:] == (5, 1)
    assert Scattering.grid(70) == 10 and Scattering.grid(64) == 8


def test_alone_or_in_a_batch_is_the_same() -> None:
    images = torch.cat([random_image(seed=s) for s in range(5)])
    together = Scattering()(images)
    alone = Scattering()(images[3:4])
    assert all(torch.equal(a[3:4], b) for a, b in zip(together, alone, strict=True))


def test_contrast_does_not_matter_but_the_floor() -> None:
    image = random_image()
    fine, _ = Scattering(colour=False)(image)
    darker, _ = Scattering(colour=False)(0.5 * image + 0.2)
    torch.testing.assert_close(fine, darker, rtol=0.15, atol=0.02)


def test_turning_the_image_turns_the_maps() -> None:
    image = random_image(64, 64)
    fine, _ = Scattering()(image)
    turned, _ = Scattering()(image.rot90(1, (2, 3)))
    # a wave along angle 0 (k = 0) runs along pi/2 (k = 3) after a quarter turn
    torch.testing.assert_close(turned[0, 3], fine[0, 0].rot90(1, (0, 1)), rtol=1e-3, atol=1e-4)


def test_shift_by_a_cell_shifts_the_fine_level() -> None:
    image = random_image(160, 160)
    fine, _ = Scattering()(image)
    shifted, _ = Scattering()(image.roll((16, 16), (2, 3)))
    # far from the borders; the contrast window reaches 48 px
    torch.testing.assert_close(shifted[0, :, 10:12, 10:12], fine[0, :, 8:10, 8:10], rtol=0, atol=2e-3)


def test_colour_is_seen_only_in_colour_channels() -> None:
    gray = grating(0.0, 1.0)
    fine, coarse = Scattering()(gray)
    assert fine[:, 127:].abs().max() < 1e-6 and coarse[:, 133:].abs().max() < 1e-6
    red = gray * torch.tensor([1.0, 0.5, 0.5])[:, None, None]
    assert Scattering()(red)[0][:, 127].mean() > 0.1


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_constant_image_gives_zeros(value: float) -> None:
    fine, coarse = Scattering(colour=False)(torch.full((1, 3, 48, 48), value))
    assert fine.abs().max() < 2e-3 and coarse.abs().max() < 2e-3


def test_slow_reference_of_one_second_order_path() -> None:
    """Octaves 0 -> 1, by plain loops over one image."""
    image = random_image(32, 32)
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    normalised = normalise_contrast((image[0] * weights).sum(0, keepdim=True))[0].double()
    bank = morlet_bank().double()

    def modulus(values: torch.Tensor, k: int) -> torch.Tensor:
        result = torch.zeros_like(values)
        for row in range(len(values)):
            for col in range(len(values)):
                window = values[mirror(len(values), row - 4, row + 5)][:, mirror(len(values), col - 4, col + 5)]
                real, imag = (window * bank[k, 0]).sum(), (window * bank[k + 6, 0]).sum()
                result[row, col] = torch.hypot(real, imag)
        return result

    half = halving_matrix(32, CPU).double()
    second = modulus(half @ modulus(normalised, 4) @ half.T, 1)
    expected = second.reshape(4, 4, 4, 4).mean((1, 3)).sqrt()
    fine, _ = Scattering(colour=False)(image)
    # octave 0: 6 channels; octave 1: 6 of the image, then 6 of each first-order map
    torch.testing.assert_close(fine[0, 6 + 6 + 4 * 6 + 1].double(), expected, rtol=1e-4, atol=1e-5)
