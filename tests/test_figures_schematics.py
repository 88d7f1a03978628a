"""The schematics say what the modules do: every shape is compared with that of a real run or a real network."""

import matplotlib
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from torch import nn

from pnilib import PNIConfig
from pnilib.coreset import coreset_size
from pnilib.errors import PNIError
from pnilib.features.backbones import level_shapes
from pnilib.features.extraction import Embedder
from pnilib.neighborhood import NeighborhoodMLP
from pnilib.plots.schematics import draw_mlp, draw_overview, mlp_layers, overview_boxes

matplotlib.use("Agg")

PAPER, DEMO = PNIConfig(), PNIConfig.profile("demo")
LIGHT = dict(backbone="resnet18", weights="random", refine_growth=4, refine_blocks="1,1,1,1", refine_stem_width=8,
             refine_decoder=64)  # fmt: skip
TINY = PNIConfig(**LIGHT, image_resize=64, image_crop=64, dim=24, patch=3, mlp_layers=3, mlp_width=20, dist_size=16)


@pytest.fixture
def ax():
    return Figure(figsize=(15.5, 6), layout="constrained").subplots()


def texts(ax):
    return [text.get_text() for text in ax.texts]


# -- shapes --------------------------------------------------------------------------------------


def test_the_papers_shapes():
    assert level_shapes(PAPER) == ((512, 60, 60), (1024, 30, 30))
    assert level_shapes(PAPER.replace(backbone="densenet201")) == ((512, 60, 60), (1792, 30, 30))
    layers = mlp_layers(PAPER)
    assert [layer.inputs for layer in layers] == [80 * 1024] + [2048] * 9
    assert [layer.neurons for layer in layers] == [2048] * 10
    assert [layer.after for layer in layers] == [("BN", "ReLU")] * 9 + [()]


@pytest.mark.parametrize(
    "config", [DEMO, TINY, TINY.replace(backbone="densenet201", image_crop=50)], ids=("demo", "resnet", "dense")
)
def test_shapes_are_those_of_a_real_image(config):
    embedder = Embedder(config)
    images = torch.rand(1, 3, config.image_crop, config.image_crop)
    assert level_shapes(config) == tuple(tuple(level.shape[1:]) for level in embedder.backbone(images))
    h, w = embedder.embed(images).shape[1:3]
    d = embedder.dim
    boxes = overview_boxes(config)
    assert boxes["features"][1] == boxes["test features"][1] == f"{h} × {w} × {d}"
    assert boxes["features"][-1] == f"N = n × {h * w:,}"
    assert boxes["score"][-1] == f"{h} × {w}" and boxes["histogram"][-1] == f"{h} × {w} × {config.dist_size}"
    for k, level in enumerate(embedder.backbone(images)):
        c, rows, columns = level.shape[1:]
        assert boxes["backbone"][2 + k] == f"level {k + 2}: {rows} × {columns} × {c}" == boxes["test backbone"][1 + k]


@pytest.mark.parametrize(
    "config", [DEMO, TINY, TINY.replace(mlp_dropout=0.5, mlp_layers=1), TINY.replace(mlp_dropout=0.25)]
)
def test_layers_are_those_of_the_real_mlp(config):
    real = NeighborhoodMLP(Embedder(config).dim, config.dist_size, config)
    layers = mlp_layers(config)
    linear = [m for m in real.modules() if isinstance(m, nn.Linear)]
    assert [(layer.inputs, layer.neurons) for layer in layers] == [(m.in_features, m.out_features) for m in linear]
    assert [len(layer.after) for layer in layers] == [3 if config.mlp_dropout else 2] * (len(linear) - 1) + [0]
    if config.mlp_dropout and len(linear) > 1:
        assert layers[0].after == ("BN", "ReLU", f"dropout {config.mlp_dropout:g}")
    weights = sum(layer.neurons * (layer.inputs + 1 + 2 * ("BN" in layer.after)) for layer in layers)
    assert weights == sum(p.numel() for p in real.parameters())
    assert overview_boxes(config)["MLP"][2].split(" → ")[0] == f"{linear[0].in_features:,}"


def test_the_papers_overview():
    boxes = overview_boxes(PAPER)
    assert boxes["normal images"] == ("normal images", "n × 480 × 480 × 3")
    assert boxes["backbone"][:2] == ("backbone φ, frozen", "wide_resnet101_2")
    assert boxes["features"] == ("features Φ", "60 × 60 × 1024", "mean of 5 × 5 cells", "N = n × 3,600")
    assert boxes["C_emb"][-1] == "1 % of N" and boxes["C_dist"][-1] == "its first 2,048 vectors"
    assert boxes["MLP"] == ("MLP: p(c | N_p(x))", "p = 9, 10 layers", "81,920 → 9 × 2,048 → 2,048")
    assert boxes["histogram"] == ("histogram: p(c | x)", "p = 9", "60 × 60 × 2048")
    assert boxes["score"][1:] == (
        "T = 2, λ = 1", "τ = 1 / (2 |C_emb|)", "gate: MLP and histogram,", "mean, eq. (6)", "60 × 60",
    )  # fmt: skip
    assert boxes["map"][1:] == ("Gaussian, σ = 8 px", "480 × 480")
    assert boxes["final"][1:] == ("Ã = f(I, Â)", "0.9 Â + 0.1 Ã", "480 × 480")
    assert boxes["defects"][2:] == ("cutpaste, scar, draem,", "manual")
    assert boxes["refinement"][1:] == (
        "480 × 480, 4 channels → 1", "loss: l2 and gradient", "55,000 iterations of 8",
    )  # fmt: skip


def test_counts_follow_from_the_number_of_images():
    config = PAPER.replace(**LIGHT)
    boxes = overview_boxes(config, 209)
    assert boxes["normal images"][1] == "209 × 480 × 480 × 3" and boxes["features"][-1] == "N = 209 × 3,600 = 752,400"
    assert boxes["C_emb"][-1] == f"1 % of N = {coreset_size(752_400, 0.01):,}" == "1 % of N = 7,524"
    few = overview_boxes(config, 10)  # 360 vectors: C_dist cannot have 2,048
    assert few["C_dist"][-1] == "its first 360 vectors" and few["MLP"][2].endswith("→ 360")
    assert few["histogram"][-1] == "60 × 60 × 360" and mlp_layers(PAPER, 10)[-1].neurons == 360


def test_switches_show():
    released = overview_boxes(PNIConfig.profile("released").replace(**LIGHT))
    assert released["features"][-1] == "N = n × 3,136"  # 56 x 56 cells inside the border
    assert released["histogram"][-1] == "60 × 60 × |C_emb|" and "mean of two scores" in released["score"]
    assert overview_boxes(PNIConfig.profile("released").replace(**LIGHT), 100)["histogram"][-1] == "60 × 60 × 3136"
    assert overview_boxes(TINY.replace(setting="A"))["score"][-2] == "no gate"
    assert overview_boxes(TINY.replace(setting="B"))["score"][-2] == "gate: MLP"
    assert overview_boxes(TINY.replace(setting="position"))["score"][-2] == "gate: histogram"
    single = PNIConfig.profile("scattering").replace(agg_patch=1)
    assert overview_boxes(single)["features"][2:4] == ("single cells", "standardised: half_whiten")
    assert overview_boxes(DEMO)["features"][2] == "mean of 3 × 3 cells"
    assert overview_boxes(TINY.replace(refine_grad="off", refine_loss="mse"))["refinement"][2] == "loss: mse"
    assert overview_boxes(TINY.replace(released="dist_threshold"))["score"][2] == "τ = 1 / (2 |C_dist|)"


def test_a_border_that_leaves_nothing_is_refused():
    with pytest.raises(PNIError, match="no patch is left"):
        overview_boxes(TINY.replace(border="replicate", border_cells=4))


# -- drawings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [PAPER, DEMO], ids=("paper", "demo"))
def test_the_overview_writes_every_line_of_every_box(config, ax):
    assert draw_overview(config, ax, title="t") is ax and ax.get_title() == "t"
    boxes = overview_boxes(config)
    written = texts(ax)
    assert sorted(line for lines in boxes.values() for line in lines) == sorted(
        text for text in written if text not in ("training", "inference", "refinement,\ntraining")
    )
    assert len([patch for patch in ax.patches if isinstance(patch, FancyBboxPatch)]) == len(boxes)


def test_lines_fit_in_their_boxes(ax):
    config = PNIConfig.profile("released").replace(
        **LIGHT | dict(backbone="wide_resnet50_2"), patch=15, mlp_layers=20, feature_norm="channel"
    )
    draw_overview(config, ax, n_train=391)
    ax.figure.draw_without_rendering()
    boxes = [patch.get_window_extent() for patch in ax.patches if isinstance(patch, FancyBboxPatch)]
    lines = [text for text in ax.texts if text.get_rotation() == 0]
    assert len(lines) == sum(len(found) for found in overview_boxes(config, 391).values())
    for text in lines:
        inner = text.get_window_extent()
        assert any(
            box.x0 <= inner.x0 and inner.x1 <= box.x1 and box.y0 <= inner.y0 and inner.y1 <= box.y1 for box in boxes
        ), text.get_text()


@pytest.mark.parametrize(("setting", "unused"), [("A", 2), ("B", 1), ("position", 1), ("E", 0)])
def test_what_a_setting_does_not_ask_is_dashed(setting, unused, ax):
    draw_overview(TINY.replace(setting=setting), ax)
    assert [p.get_linestyle() for p in ax.patches if isinstance(p, FancyBboxPatch)].count("--") == unused
    assert texts(ax).count(f"not in setting {setting}") == unused


def test_the_mlp_has_a_bar_a_layer_and_a_cell_a_neighbor(ax):
    assert draw_mlp(PAPER, ax, title="t") is ax and ax.get_title() == "t"
    cells = [p for p in ax.patches if isinstance(p, Rectangle) and p.get_width() == pytest.approx(2.6 / 9)]
    white = [p for p in cells if p.get_facecolor() == (1, 1, 1, 1)]
    assert len(cells) == 81 and len(white) == 1 and white[0].get_linewidth() == 1.8, "all but the framed centre"
    assert white[0].get_x() + white[0].get_width() / 2 == pytest.approx(1.3)
    bars = [p for p in ax.patches if isinstance(p, Rectangle) and p.get_width() == 0.26]
    assert len(bars) == 11 and bars[0].get_height() > bars[1].get_height() == bars[10].get_height()
    written = texts(ax)
    assert written.count("2,048") == 10 and "81,920\n= 80 · 1,024" in written and written.count("BN\nReLU") == 9
    assert "N_MLP = 10 linear layers" in written and "2,048 entries" in written
    assert "softmax(logits / T), T = 2" in written and "N_p(x): 80 of 9 × 9 cells,\nwithout the centre" in written


def test_the_leak_is_drawn(ax):
    draw_mlp(TINY.replace(released="centre_leak", mlp_dropout=0.5), ax)
    cells = [p for p in ax.patches if isinstance(p, Rectangle) and p.get_width() == pytest.approx(2.6 / 3)]
    assert [p.get_facecolor() == (1, 1, 1, 1) for p in cells] == [False] * 5 + [True] + [False] * 3
    assert [p.get_linewidth() == 1.8 for p in cells] == [False] * 4 + [True] + [False] * 4
    assert "N_p(x): 8 of 3 × 3 cells,\nwith the centre" in texts(ax) and "BN\nReLU\ndropout\n0.5" in texts(ax)


def test_many_layers_are_counted_not_drawn(ax):
    draw_mlp(TINY.replace(mlp_layers=30), ax)
    assert "21\nmore" in texts(ax) and texts(ax).count("20") == 6 + 2 and texts(ax).count("16") == 1
    one = draw_mlp(TINY.replace(mlp_layers=1), Figure().subplots())
    assert "N_MLP = 1 linear layers" in texts(one) and not any("BN" in text for text in texts(one))


def test_drawing_leaves_no_trace_on_the_random_numbers(ax):
    before = torch.get_rng_state()
    draw_overview(TINY, ax)
    draw_mlp(TINY, ax)
    assert torch.equal(before, torch.get_rng_state())
