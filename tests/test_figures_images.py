"""Pictures draw what they are given: no scale of their own, outlines in place, crops of the right pixels."""

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from pnilib.errors import PNIError
from pnilib.plots.images import (
    cell_box,
    color_bar,
    common_limits,
    crop_patch,
    draw_outline,
    show_crops,
    show_image,
    show_map,
)

matplotlib.use("Agg")


@pytest.fixture
def ax():
    return Figure().subplots()


def numbered(size: int) -> torch.Tensor:
    """Each pixel holds its own row (red) and column (green), in units of 1/size."""
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return torch.stack([rows, columns, torch.zeros_like(rows)]).float() / size


def test_a_map_is_drawn_on_the_limits_given_never_its_own(ax):
    returned = show_map(np.full((4, 4), 5.0, np.float32), ax, limits=(0.0, 10.0), title="t")
    assert returned is ax
    drawn = ax.images[-1]
    assert (drawn.norm.vmin, drawn.norm.vmax) == (0.0, 10.0)
    assert ax.get_title() == "t"
    # half way up the colour map, although the map is constant
    assert drawn.to_rgba(drawn.get_array())[0, 0] == pytest.approx(matplotlib.colormaps["magma"](0.5), abs=0.01)


def test_an_overlay_keeps_the_image_visible(ax):
    show_map(np.zeros((4, 4), np.float32), ax, limits=(0.0, 1.0), image=numbered(4))
    below, above = ax.images
    assert below.get_cmap().name == "gray" and (below.norm.vmin, below.norm.vmax) == (0, 1)
    assert above.get_alpha() == 0.7


def test_common_limits_span_all_maps():
    assert common_limits([np.array([1.0, 2.0]), np.array([-3.0, 0.5])]) == (-3.0, 2.0)


def test_color_bar_says_limits_and_unit(ax):
    bar = color_bar(ax, (1.0, 3.0), "score (nats)", "viridis")
    assert (bar.mappable.norm.vmin, bar.mappable.norm.vmax) == (1.0, 3.0)
    assert bar.ax.get_ylabel() == "score (nats)" and bar.cmap.name == "viridis"
    assert color_bar([ax, ax], (0.0, 1.0), "x").mappable.norm.vmax == 1.0


def test_an_outline_runs_half_a_pixel_around_the_mask_also_at_the_border(ax):
    mask = torch.zeros(5, 6, dtype=torch.bool)
    mask[0:2, 3:6] = True  # touches the top and the right border
    draw_outline(mask, ax)
    points = np.concatenate([path.vertices for path in ax.collections[0].get_paths()])
    assert points.min(0) == pytest.approx([2.5, -0.5]) and points.max(0) == pytest.approx([5.5, 1.5])
    assert (ax.get_xlim(), ax.get_ylim()) == ((-0.5, 5.5), (4.5, -0.5))  # no white rim


def test_no_outline_without_a_defect(ax):
    show_image(numbered(4), ax, mask=torch.zeros(4, 4, dtype=torch.bool))
    assert len(ax.collections) == 0


def test_cell_boxes_tile_the_image_row_by_row():
    assert cell_box(0, (4, 6), 24) == (0, 0, 6, 4)
    assert cell_box(7, (4, 6), 24) == (6, 4, 12, 8)  # row 1, column 1
    assert cell_box(23, (4, 6), 24) == (18, 20, 24, 24)
    covered = np.zeros((10, 10), int)
    for cell in range(9):  # 10 px do not divide by 3 cells
        top, left, bottom, right = cell_box(cell, (3, 3), 10)
        covered[top:bottom, left:right] += 1
    assert (covered == 1).all()


@pytest.mark.parametrize("cell", [-1, 24])
def test_a_cell_outside_the_grid_is_refused(cell):
    with pytest.raises(PNIError, match="outside a 4x6 grid"):
        cell_box(cell, (4, 6), 24)


def test_a_crop_holds_its_cell_and_the_context_around_it():
    image = numbered(16)
    crop = crop_patch(image, 5, (4, 4), context=1)  # row 1, column 1: pixels 4 ... 7, with context 0 ... 11
    assert torch.equal(crop, image[:, 0:12, 0:12])
    assert torch.equal(crop_patch(image, 5, (4, 4), context=0), image[:, 4:8, 4:8])


def test_edge_pixels_repeat_beyond_the_image():
    image = numbered(16)
    crop = crop_patch(image, 0, (4, 4), context=1)
    assert crop.shape == (3, 12, 12)
    assert torch.equal(crop[:, 4:, 4:], image[:, :8, :8])
    assert torch.equal(crop[:, :4, :4], image[:, :1, :1].expand(3, 4, 4))


def test_a_contact_sheet_shows_each_crop_once_in_reading_order(ax):
    crops = [torch.full((3, 8, 8), value) for value in (0.0, 0.25, 0.5)]
    show_crops(crops, ax, columns=2, labels=["a", "b", "c"])
    sheet = np.asarray(ax.images[0].get_array())[..., 0]
    assert [(sheet == v).sum() for v in (0.0, 0.25, 0.5)] == [64, 64, 64]
    tops = [np.argwhere(sheet == v).min(0).tolist() for v in (0.0, 0.25, 0.5)]
    assert tops[0][0] == tops[1][0] < tops[2][0]  # a and b in a row, c below
    assert tops[0][1] == tops[2][1] < tops[1][1]
    assert [text.get_text() for text in ax.texts] == ["a", "b", "c"]


def test_a_sheet_of_nothing_is_refused(ax):
    with pytest.raises(PNIError, match="no crops"):
        show_crops([], ax)
