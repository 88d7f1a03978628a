"""Pictures of the refinement draw the module that runs, and the values they are given."""

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from pnilib import PNIConfig
from pnilib.detector.steps import network_class
from pnilib.errors import PNIError
from pnilib.plots.network import draw_details, draw_schema, network_steps
from pnilib.plots.refinement import draw_gradient_shares, draw_history, draw_profiles, draw_surroundings, window
from pnilib.refinement.network import RefineNet, build_network

matplotlib.use("Agg")

SMALL = PNIConfig.profile("smoke").replace(
    refine_growth=4, refine_blocks="1,2,1,1", refine_stem_width=8, refine_decoder=64, refine_skips="none",
    refine_decoder_norm="none", refine_loss="l2",
)  # fmt: skip


@pytest.fixture
def ax():
    return Figure().subplots()


def texts(ax):
    return [text.get_text() for text in ax.texts]


def by_name(config, side):
    return {step.name: step for step in network_steps(config, side)}


# -- the network ---------------------------------------------------------------------------------


def test_the_papers_network_has_the_numbers_of_the_supplement():
    steps = by_name(PNIConfig(), 480)
    assert steps["fusion"] == ("fusion", ("sum",), 96, 120, 120, 0)
    assert [steps[f"dense block {k}"].channels for k in (1, 2, 3, 4)] == [384, 768, 2112, 2208]
    assert steps["dense block 4"][2:5] == (2208, 15, 15)
    assert [steps[name].channels for name in ("compress", *(f"up {k}" for k in range(1, 6)))] == [
        768, 384, 192, 96, 48, 24,
    ]  # fmt: skip
    assert [steps[f"up {k}"].height for k in range(1, 6)] == [30, 60, 120, 240, 480]
    assert steps["Ã"] == ("Ã", (), 1, 480, 480, 0)
    assert steps["stem of I"].operations == ("7×7, 96, S2, BN, ReLU", "max 3×3, S2")
    assert steps["dense block 1"].operations == ("BN, ReLU, 1×1, 192", "BN, ReLU, 3×3, 48", "6 times, appended")
    assert steps["dense block 4"].operations[-1] == "BN, ReLU"
    assert steps["transition 2"].operations == ("BN, ReLU, 1×1, 384", "mean 2×2, S2")
    assert steps["up 1"].operations == ("bilinear ×2", "1×1, 384, ReLU", "3×3, 384, ReLU")


@pytest.mark.parametrize(
    "change",
    [{}, dict(refine_skips="unet"), dict(refine_decoder_norm="batch"), dict(released="three_map_channels")],
    ids=str,
)
def test_steps_add_up_to_the_real_network(change):
    config = SMALL.replace(**change)
    steps, network = network_steps(config, 70), build_network(config, kind=network_class(config)).eval()
    assert sum(step.parameters for step in steps) == sum(p.numel() for p in network.parameters())
    with torch.no_grad():
        out = network(torch.zeros(1, 3, 70, 70), torch.zeros(1, 1, 70, 70))
    assert steps[-1][2:5] == out.shape[1:] == (1, 70, 70)
    names = [step.name for step in steps]
    assert len(set(names)) == len(names)
    # 70 px are continued to 96: an eighth, a sixteenth, a thirty-second of that after the blocks
    assert [s.height for s in steps if s.name.startswith("dense")] == [24, 12, 6, 3]


def test_by_hand_on_the_small_network():
    steps = by_name(SMALL, 32)
    assert [steps[f"dense block {k}"].channels for k in (1, 2, 3, 4)] == [12, 14, 11, 9]  # 8+4, 6+8, 7+4, 5+4
    assert steps["stem of Â"].parameters == 1 * 8 * 49 + 2 * 8  # one channel, 7 x 7, BN's weight and bias
    assert steps["compress"].parameters == 9 * 64 + 64
    assert steps["up 5"].parameters == (4 * 2 + 2) + (2 * 2 * 9 + 2)
    assert steps["head"].parameters == 2 + 1


def test_switches_show():
    plain, unet = by_name(SMALL, 64), by_name(SMALL.replace(refine_skips="unet"), 64)
    assert not any("with" in line for step in plain.values() for line in step.operations)
    assert unet["up 1"].operations[1] == "with 11 of dense block 3"
    assert unet["up 3"].operations[1] == "with 12 of dense block 1"
    assert unet["up 4"].operations[1] == unet["up 5"].operations[1] == "with 4 of I, Â"
    normed = by_name(SMALL.replace(refine_decoder_norm="batch"), 64)
    assert normed["up 2"].operations[1] == "1×1, 16, BN, ReLU"
    assert by_name(SMALL.replace(released="mean_of_stems"), 64)["fusion"].operations == ("mean",)
    residual = SMALL.replace(released="residual", refine_loss="ce")
    assert by_name(residual, 64)["Ã"].operations == ("+ Â", "sigmoid")


def test_walking_leaves_no_trace_on_the_random_numbers():
    before = torch.get_rng_state()
    network_steps(SMALL, 32)
    assert torch.equal(before, torch.get_rng_state())
    assert next(RefineNet(SMALL).parameters()).device.type == "cpu"


def test_a_picture_without_pixels_is_refused():
    with pytest.raises(PNIError, match="0 px has no shape"):
        network_steps(SMALL, 0)


def test_schema_writes_channels_and_sizes(ax):
    steps = network_steps(SMALL, 64)
    assert draw_schema(steps, ax, title="t") is ax and ax.get_title() == "t"
    written = texts(ax)
    for step in steps:
        assert step.name in written
        assert f"{step.channels}\n{step.height}²" in written
    boxes = {text.get_text(): patch for patch, text in zip(boxes_of(ax), ax.texts[::2], strict=True)}
    assert boxes["I"].get_height() == boxes["up 5"].get_height() > boxes["dense block 4"].get_height()
    centre = {name: box.get_y() + box.get_height() / 2 for name, box in boxes.items()}
    assert centre["stem of I"] > centre["fusion"] == pytest.approx(centre["head"], abs=1e-9)
    assert centre["stem of Â"] == -centre["stem of I"] and boxes["I"].get_x() == boxes["Â"].get_x()
    low, high = ax.get_ylim()
    assert all(low < box.get_y() and box.get_y() + box.get_height() < high for box in boxes.values())


def boxes_of(ax):
    return [patch for patch in ax.patches if isinstance(patch, matplotlib.patches.Rectangle)]


def test_schema_has_an_arc_for_each_skip(ax):
    draw_schema(network_steps(SMALL, 64), ax)
    other = draw_schema(network_steps(SMALL.replace(refine_skips="unet"), 64), Figure().subplots())

    def arrows(a):
        return [patch for patch in a.patches if isinstance(patch, matplotlib.patches.FancyArrowPatch)]

    # inputs to stems to fusion: 4; fusion, 4 blocks and 3 transitions, compress, 5 ups, head, output: 15 arrows
    assert len(arrows(ax)) == 4 + 15
    assert len(arrows(other)) == 4 + 15 + 5


def test_details_write_operations_and_outputs(ax):
    steps = network_steps(SMALL.replace(refine_skips="unet"), 64)
    assert draw_details(steps, ax) is ax
    written = texts(ax)
    assert len(written) == 3 * len(steps)
    for step in steps:
        assert step.name in written
        assert f"{step.channels} × {step.height} × {step.width}" in written
    assert "bilinear ×2\nwith 11 of\ndense block 3\n1×1, 32, ReLU\n3×3, 32, ReLU" in written


# -- maps, edges, losses -------------------------------------------------------------------------


def test_window_is_a_square_around_the_defect_and_inside_the_image():
    mask = torch.zeros(20, 30, dtype=torch.bool)
    mask[9:12, 14:18] = True
    rows, columns = window(mask, 8)
    assert (rows.start, rows.stop, columns.start, columns.stop) == (6, 14, 12, 20)
    corner = torch.zeros(20, 30, dtype=torch.bool)
    corner[0, 29] = True
    rows, columns = window(corner, 8)
    assert (rows.start, rows.stop, columns.start, columns.stop) == (0, 8, 22, 30)
    rows, columns = window(corner, 25)
    assert (rows.start, rows.stop) == (0, 20) and columns.stop - columns.start == 25
    with pytest.raises(PNIError, match="mask is empty"):
        window(torch.zeros(4, 4, dtype=torch.bool), 2)


def test_profiles_shade_every_run_of_the_defect(ax):
    truth = np.array([True, True, False, False, True, False])
    draw_profiles(truth, {"a": np.arange(6.0), "b": np.ones(6)}, ax, label="unit")
    assert [(p.get_x(), p.get_x() + p.get_width()) for p in ax.patches] == [(-0.5, 1.5), (3.5, 4.5)]
    assert [line.get_ydata().tolist() for line in ax.lines] == [[0, 1, 2, 3, 4, 5], [1] * 6]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["true defect", "a", "b"]
    assert ax.get_ylabel() == "unit"


def test_surroundings_share_bins_and_are_percentages(ax):
    values = {"a": np.array([0.0, 0.0, 1.0, 1.0]), "b": np.full(10, 2.0)}
    draw_surroundings(values, ax, label="nats", n_bins=4)
    heights = [patch.get_data().values.tolist() for patch in ax.patches]
    assert heights == [[50, 0, 50, 0], [0, 0, 0, 100]]
    assert all(np.array_equal(p.get_data().edges, [0, 0.5, 1, 1.5, 2]) for p in ax.patches)
    assert [line.get_xdata()[0] for line in ax.lines] == [0.5, 2.0]
    draw_surroundings({"one value": np.ones(3)}, Figure().subplots(), label="nats")  # no span is no fault
    with pytest.raises(PNIError, match="group 'b' is empty"):
        draw_surroundings({"a": np.ones(2), "b": np.ones(0)}, ax, label="nats")


def test_histories_start_at_one_whatever_their_unit(ax):
    rows = [{"iteration": 50, "loss": 4e-3}, {"iteration": 100, "loss": 1e-3}]
    draw_history({"norm": rows, "ce": [{"iteration": 50, "loss": 0.5}], "tiny": []}, ax)
    assert ax.lines[0].get_xdata().tolist() == [50, 100] and ax.lines[0].get_ydata().tolist() == [1, 0.25]
    assert ax.lines[1].get_ydata().tolist() == [1] and len(ax.lines[2].get_xdata()) == 0
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["norm", "ce", "tiny: too short to log a loss"]


def test_the_pull_of_each_image_is_that_of_autograd(ax):
    errors = torch.tensor([[1.0, 0.0], [0.0, 3.0], [2.4, 3.2]], requires_grad=True)  # norms 1, 3, 4
    norms = torch.linalg.vector_norm(errors, dim=1)
    draw_gradient_shares(norms.detach().numpy().astype(np.float64), ax)
    bars = np.array([[bar.get_height() for bar in bars] for bars in ax.containers])
    for shown, loss in zip(bars, (norms.sum(), norms.square().sum()), strict=True):
        (pull,) = torch.autograd.grad(loss, errors, retain_graph=True)
        share = pull.norm(dim=1) / pull.norm(dim=1).sum()
        assert shown == pytest.approx(100 * share.numpy(), rel=1e-5)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["1", "3", "4"]
    with pytest.raises(PNIError, match="an error of 0"):
        draw_gradient_shares(np.array([1.0, 0.0]), ax)
