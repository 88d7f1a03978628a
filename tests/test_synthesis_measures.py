"""Numbers of a defect: a square by hand, its rim, its visibility on a rough surface."""

import numpy as np
import pytest

from pnilib.synthesis.measures import measure


def square():
    clean = np.full((16, 24, 3), 0.5, np.float32)
    mask = np.zeros((16, 24), bool)
    mask[4:8, 6:10] = True
    return clean, mask


def test_a_square_by_hand():
    clean, mask = square()
    image = clean.copy()
    image[mask, 1] += 0.2  # one channel
    numbers = measure(clean, image, mask)
    assert numbers["area"] == pytest.approx(100 * 16 / (16 * 24))
    assert numbers["boundary"] == pytest.approx(16 / np.sqrt(16 * 24))
    assert numbers["contrast"] == pytest.approx(51, abs=1e-3) and numbers["rim"] == pytest.approx(51, abs=1e-3)
    assert numbers["visible"] == pytest.approx(51, abs=1e-3), "a uniform surface counts as one grey level"


def test_the_rim_is_the_outermost_pixels():
    clean, mask = square()
    image = clean.copy()
    image[5:7, 7:9] += 0.4  # the four inner pixels of sixteen
    numbers = measure(clean, image, mask)
    assert numbers["rim"] == 0 and numbers["contrast"] == pytest.approx(0.4 * 255 / 4, abs=1e-3)
    edge = np.zeros((16, 24), bool)
    edge[:, :3] = True  # at the image's border there is no rim
    image = clean.copy()
    image[:, :2] += 0.4
    assert measure(clean, image, edge)["rim"] == 0
    assert measure(clean, image, edge)["boundary"] == pytest.approx(16 / np.sqrt(16 * 24))


def test_visible_is_relative_to_the_surface():
    rough = np.full((40, 40, 3), 0.5, np.float32)
    rough[(np.indices((40, 40)).sum(0) % 2) == 0] += 0.2  # a board of +-0.1
    mask = np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    image = rough + np.float32(0.3) * mask[..., None]
    assert measure(rough, image, mask)["visible"] == pytest.approx(3, rel=0.02)
    half = rough + np.float32(0.15) * mask[..., None]
    assert measure(rough, half, mask)["visible"] == pytest.approx(1.5, rel=0.02)


def test_nothing_and_everything():
    clean, mask = square()
    assert set(measure(clean, clean, ~mask & mask).values()) == {0.0}
    whole = measure(clean, clean + np.float32(0.1), np.ones_like(mask))
    assert whole["area"] == 100 and whole["boundary"] == 0 and whole["rim"] == 0
