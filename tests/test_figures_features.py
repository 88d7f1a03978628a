"""Feature pictures: one projection for all images, one scale for all filters."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from pnilib.errors import PNIError
from pnilib.features.scattering import morlet_bank
from pnilib.plots.features import draw_matrix, draw_spectra, pca_rgb, show_wavelets


@pytest.fixture
def ax():
    return Figure().subplots()


def test_equal_features_get_equal_colours_in_different_images():
    features = torch.randn(3, 4, 4, 8, generator=torch.Generator().manual_seed(0))
    features[2] = features[0].flip(0)
    colours = pca_rgb(features)
    assert colours.shape == (3, 3, 4, 4)
    torch.testing.assert_close(colours[2], colours[0].flip(1))


def test_components_become_colours_by_hand():
    # three uncorrelated channels of variances 9 > 4 > 1: red, green, blue, each sign taken once
    signs = torch.tensor([[a, b, c] for a in (-1.0, 1.0) for b in (-1.0, 1.0) for c in (-1.0, 1.0)])
    features = (signs * torch.tensor([3.0, 2.0, 1.0])).reshape(1, 2, 4, 3)
    colours = pca_rgb(features, spread=2.0)
    # one standard deviation of two: 1/4 or 3/4
    torch.testing.assert_close(colours[0].permute(1, 2, 0).reshape(8, 3), 0.5 + signs / 4)


def test_two_channels_are_refused():
    with pytest.raises(PNIError, match="three"):
        pca_rgb(torch.zeros(1, 2, 2, 2))


def test_wavelets_share_one_symmetric_scale(ax):
    bank = morlet_bank()[:6]
    show_wavelets(bank, ax)
    drawn = ax.images[0]
    assert drawn.norm.vmax == -drawn.norm.vmin == pytest.approx(float(bank.abs().max()))
    assert np.asarray(drawn.get_array()).shape == (9, 59)


def test_a_matrix_starts_at_zero_and_marks_its_levels(ax):
    draw_matrix(torch.full((2, 6), 3.0), ax, borders=(4,))
    assert ax.images[0].norm.vmin == 0
    assert list(ax.lines[0].get_xdata()) == [3.5, 3.5]


def test_spectra_start_at_one(ax):
    draw_spectra({"a": torch.tensor([4.0, 2.0]), "b": torch.tensor([100.0, 1.0])}, ax)
    assert [line.get_ydata().tolist() for line in ax.lines] == [[1.0, 0.5], [1.0, pytest.approx(0.01)]]
