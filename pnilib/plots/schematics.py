"""PNI as a whole and its neighborhood MLP, drawn from the modules (PNI Figures 2 and S1).

`overview_boxes` asks the backbone, `sizes` and the refinement network what they give under a configuration, and
`mlp_layers` walks over the real MLP; all exist as shapes only, so the drawings cannot disagree with the code.
`Axes` in, `Axes` out; nothing is saved.
"""

from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from torch import nn

from pnilib.config import PNIConfig
from pnilib.detector.dimensions import sizes
from pnilib.detector.steps import offsets
from pnilib.features.backbones import level_shapes
from pnilib.neighborhood import NeighborhoodMLP, neighbor_offsets
from pnilib.plots.distributions import COLORS
from pnilib.plots.network import network_steps

__all__ = ["Layer", "draw_mlp", "draw_overview", "mlp_layers", "overview_boxes"]

_GATES = {"A": (), "B": ("MLP",), "position": ("histogram",), "E": ("MLP", "histogram")}
_MOST = 10  # layers drawn one by one


class Layer(NamedTuple):
    """One fully connected layer: its inputs, its neurons, and what follows it (BN, ReLU, dropout)."""

    inputs: int
    neurons: int
    after: tuple[str, ...]


def mlp_layers(config: PNIConfig, n_train: int | None = None) -> list[Layer]:
    """The layers of the neighborhood MLP of a configuration, in running order.

    Without the number of training images |C_dist| is taken to be `dist_size`; few images may have less.
    """
    n_dist = config.dist_size if n_train is None else sizes(config, n_train).n_dist
    with torch.device("meta"):
        mlp = NeighborhoodMLP(sizes(config, 1).d, n_dist, config)
    layers: list[Layer] = []
    for leaf in (mlp.first, *mlp.rest):
        if isinstance(leaf, nn.Linear):
            layers.append(Layer(leaf.in_features, leaf.out_features, ()))
        else:
            layers[-1] = layers[-1]._replace(after=(*layers[-1].after, _word(leaf)))
    return layers


def _word(leaf: nn.Module) -> str:
    if isinstance(leaf, nn.Dropout):
        return f"dropout {leaf.p:g}"
    return {nn.BatchNorm1d: "BN", nn.ReLU: "ReLU"}.get(type(leaf), type(leaf).__name__)


def overview_boxes(config: PNIConfig, n_train: int | None = None) -> dict[str, tuple[str, ...]]:
    """What each box of Figure 2 says under a configuration: its title, then lines with shapes and parameters.

    With the number of training images also the counts that follow from it.  Raises PNIError as `sizes` does.
    """
    z, side, layers = sizes(config, 1), config.image_crop, mlp_layers(config, n_train)
    fitted = None if n_train is None else sizes(config, n_train)
    n = "n" if n_train is None else str(n_train)
    levels = [f"level {k}: {h} × {w} × {c}" for k, (c, h, w) in enumerate(level_shapes(config), 2)]
    features = f"{z.side} × {z.side} × {z.d}"
    return {
        "normal images": ("normal images", f"{n} × {side} × {side} × 3"),
        "backbone": ("backbone φ, frozen", config.backbone, *levels),
        "features": (
            "features Φ",
            features,
            f"mean of {config.agg_patch} × {config.agg_patch} cells" if config.agg_patch > 1 else "single cells",
            *(() if config.feature_norm == "none" else (f"standardised: {config.feature_norm}",)),
            f"N = {n} × {z.n_patches:,}" + ("" if fitted is None else f" = {fitted.n_patches:,}"),
        ),
        "greedy": ("greedy subsampling", "one run for both coresets"),
        "C_emb": (
            "C_emb",
            "embedding coreset",
            f"{100 * config.emb_ratio:g} % of N" + ("" if fitted is None else f" = {fitted.n_emb:,}"),
        ),
        "C_dist": ("C_dist", "distribution coreset", f"its first {layers[-1].neurons:,} vectors"),
        "MLP": ("MLP: p(c | N_p(x))", f"p = {config.patch}, {len(layers)} layers", _widths(layers)),
        "histogram": (
            "histogram: p(c | x)",
            f"p = {config.patch}",
            f"{z.side} × {z.side} × {_bins(config, layers[-1].neurons, None if fitted is None else fitted.n_bins)}",
        ),
        "test image": ("test image I", f"{side} × {side} × 3"),
        "test backbone": ("the same φ", *levels),
        "test features": ("features Φ", features),
        "score": (
            "score S(x), eqs. (2) to (8)",
            f"T = {config.temperature:g}, λ = {config.lambda_:g}",
            f"τ = 1 / (2 |C_{'dist' if 'dist_threshold' in config.released else 'emb'}|)",
            *_gate(config),
            f"{z.side} × {z.side}",
        ),
        "map": ("anomaly map Â", f"Gaussian, σ = {config.sigma:g} px", f"{side} × {side}"),
        **_refinement_boxes(config),
    }


def _widths(layers: Sequence[Layer]) -> str:
    """Neurons from layer to layer, equal neighbors counted."""
    runs = [(neurons, len(list(run))) for neurons, run in groupby(layer.neurons for layer in layers[:-1])]
    hidden = "".join(f" → {f'{k} × ' if k > 1 else ''}{neurons:,}" for neurons, k in runs)
    return f"{layers[0].inputs:,}{hidden} → {layers[-1].neurons:,}"


def _bins(config: PNIConfig, n_dist: int, n_bins: int | None) -> str:
    if n_bins is not None:
        return str(n_bins)
    return "|C_emb|" if "emb_bins" in config.released else str(n_dist)


def _gate(config: PNIConfig) -> tuple[str, ...]:
    asked = _GATES[config.setting]
    rule = {"prob": "mean, eq. (6)", "score": "mean of two scores", "product": "product"}[config.combine]
    if len(asked) == 2:
        return (f"gate: {' and '.join(asked)},", rule)
    return (f"gate: {asked[0]}",) if asked else ("no gate",)


def _refinement_boxes(config: PNIConfig) -> dict[str, tuple[str, ...]]:
    steps, share = network_steps(config, config.image_crop), config.refine_weight
    image, anomaly_map, refined = steps[0], steps[1], steps[-1]
    size = f"{refined.height} × {refined.width}"
    return {
        "final": ("refined map", "Ã = f(I, Â)", f"{1 - share:g} Â + {share:g} Ã", size),
        "defects": ("synthetic defects", "on normal images", *_wrapped(config.defects.split(","), 3)),
        "pool": ("pool of (I, Â, A)", f"{config.pool_images:,} images", f"Â: {config.pool_maps}"),
        "refinement": (
            "refinement network f",
            f"{size}, {image.channels + anomaly_map.channels} channels → {refined.channels}",
            f"loss: {config.refine_loss}" + (" and gradient" if config.refine_grad == "on" else ""),
            f"{config.refine_iterations:,} iterations of {config.refine_batch}",
        ),
    }


def _wrapped(words: Sequence[str], most: int) -> list[str]:
    lines = [", ".join(words[k : k + most]) for k in range(0, len(words), most)]
    return [f"{line}," for line in lines[:-1]] + lines[-1:]


_WIDTH, _STEP = 2.3, 2.75
_PLACES = {  # column, middle, height
    "normal images": (0, 4.2, 0.9), "backbone": (1, 4.2, 1.2), "features": (2, 4.2, 1.3), "greedy": (3, 4.2, 0.9),
    "C_emb": (4, 4.7, 0.7), "C_dist": (4, 3.7, 0.7), "MLP": (5, 4.7, 0.85), "histogram": (5, 3.7, 0.85),
    "test image": (0, 1.9, 0.9), "test backbone": (1, 1.9, 1.0), "test features": (2, 1.9, 0.9),
    "score": (4, 1.9, 1.4), "map": (5, 1.9, 1.0), "final": (6, 1.9, 1.1),
    "defects": (1, 0.0, 1.1), "pool": (4, 0.0, 1.0), "refinement": (6, 0.0, 1.2),
}  # fmt: skip
_BANDS = (("training", 4.2, 2.3, "#eef4fa"), ("inference", 1.9, 1.75, "#f2f2f2"),
          ("refinement,\ntraining", 0.0, 1.55, "#fdf3ea"))  # fmt: skip
_ARROWS = (
    ("normal images", "backbone"), ("backbone", "features"), ("features", "greedy"), ("greedy", "C_emb"),
    ("greedy", "C_dist"), ("C_dist", "MLP"), ("C_dist", "histogram"), ("test image", "test backbone"),
    ("test backbone", "test features"), ("test features", "score"), ("score", "map"), ("map", "final"),
    ("defects", "pool"), ("pool", "refinement"),
)  # fmt: skip


def draw_overview(config: PNIConfig, ax: Axes, *, n_train: int | None = None, title: str = "") -> Axes:
    """As Figure 2: what training keeps and what inference does with it, with the shapes of this configuration.

    Distributions that the setting does not ask are drawn dashed.  Made for Axes about 2.6 times as wide as high, 14
    inches or more wide.
    """
    unused = {"MLP", "histogram"} - set(_GATES[config.setting])
    right = 6 * _STEP + _WIDTH
    for name, y, height, color in _BANDS:
        ax.add_patch(Rectangle((-0.6, y - height / 2), right + 0.75, height, facecolor=color, zorder=0))
        ax.text(-0.35, y, name, rotation=90, ha="center", va="center", fontsize=9, color="#555555")
    for column in (4, 5):  # what is kept, as two groups
        ax.add_patch(Rectangle((column * _STEP - 0.1, 3.18), _WIDTH + 0.2, 2.04, facecolor="none", edgecolor="#888888",
                               linewidth=0.8, linestyle=":", zorder=1))  # fmt: skip
    for name, lines in overview_boxes(config, n_train).items():
        (left, bottom), height = _corner(name), _PLACES[name][2]
        text = (*lines, f"not in setting {config.setting}") if name in unused else lines
        ax.add_patch(
            FancyBboxPatch((left, bottom), _WIDTH, height, boxstyle="round,pad=0,rounding_size=0.07", zorder=2,
                           facecolor="white", edgecolor="#444444", linestyle="--" if name in unused else "-")
        )  # fmt: skip
        _say(ax, left + _WIDTH / 2, bottom + height / 2, text)
    for start, end in _ARROWS:
        (x0, y0), (x1, y1) = _corner(start), _corner(end)
        _path(ax, (x0 + _WIDTH, y0 + _PLACES[start][2] / 2), (x1, y1 + _PLACES[end][2] / 2))
    image, features, score, gates, final = (column * _STEP + _WIDTH / 2 for column in (0, 2, 4, 5, 6))
    _path(ax, (features, 4.85), (features, 5.29), (gates, 5.29), (gates, 5.22))  # MLP and histogram learn from Φ
    _path(ax, (score, 3.18), (score, 2.6))
    _path(ax, (gates, 3.18), (gates, 2.9), (score + 0.7, 2.9), (score + 0.7, 2.6))
    _path(ax, (image, 1.45), (image, 1.1), (final - 0.7, 1.1), (final - 0.7, 1.35))
    _path(ax, (final, 0.6), (final, 1.35))
    ax.set(xlim=(-0.6, right + 0.15), ylim=(-0.8, 5.4), xticks=[], yticks=[])
    return _bare(ax, title)


def draw_mlp(config: PNIConfig, ax: Axes, *, n_train: int | None = None, title: str = "") -> Axes:
    """As Figure S1: the p x p window without its centre, concatenated, through the layers of the real MLP.

    Below each layer the number of its neurons, between them what follows; bars are as high as the logarithm of their
    width.  Of more than 10 layers those in the middle are left out and counted.  Made for Axes about 3 times as wide
    as high, 11 inches or more wide.
    """
    layers = mlp_layers(config, n_train)
    n_used = _window(config, ax)
    d = layers[0].inputs // n_used
    shown: list[Layer | None] = list(layers)
    if len(layers) > _MOST:
        shown = [*layers[: _MOST - 4], None, *layers[-3:]]
    at = [3.9 + 9.6 / (len(shown) + 1) * k for k in range(len(shown) + 1)]
    _bar(ax, at[0], layers[0].inputs, "#bfd7ea", f"{layers[0].inputs:,}\n= {n_used} · {d:,}")
    ax.text(at[0], 1.42, "concatenated", ha="center", va="bottom", fontsize=9)
    _path(ax, (2.7, 0), (at[0] - 0.2, 0))
    after: tuple[str, ...] = ()
    for (x0, x1), layer in zip(pairwise(at), shown, strict=True):
        _path(ax, (x0 + 0.17, 0), (x1 - 0.17, 0))
        ax.text((x0 + x1) / 2, 0.1, "\n".join(after).replace(" ", "\n"), ha="center", va="bottom", fontsize=7)
        if layer is None:
            ax.text(x1, 0, f"{len(layers) - len(shown) + 1}\nmore", ha="center", va="center", fontsize=8)
            after = ()
            continue
        _bar(ax, x1, layer.neurons, "#b9dfc7" if layer is layers[-1] else "#f5c9a3", f"{layer.neurons:,}")
        after = layer.after
    ax.text((at[1] + at[-1]) / 2, 1.42, f"N_MLP = {len(layers)} linear layers", ha="center", va="bottom", fontsize=9)
    entries = f"{layers[-1].neurons:,} entries"
    goals = (
        ("training", "cross-entropy with the index", "of the C_dist vector", "nearest to the centre"),
        ("inference", f"softmax(logits / T), T = {config.temperature:g}", "= p(c | N_p(x)),", entries),
    )
    for y, lines in zip((0.72, -0.72), goals, strict=True):
        box = FancyBboxPatch((at[-1] + 0.75, y - 0.58), 2.75, 1.16, boxstyle="round,pad=0,rounding_size=0.07",
                             facecolor="white", edgecolor="#444444")  # fmt: skip
        ax.add_patch(box)
        _say(ax, at[-1] + 2.125, y, lines)
        _path(ax, (at[-1] + 0.17, 0), (at[-1] + 0.75, y))
    ax.set(xlim=(-0.2, at[-1] + 3.6), ylim=(-2.1, 1.8), xticks=[], yticks=[], aspect="equal")
    return _bare(ax, title)


def _window(config: PNIConfig, ax: Axes) -> int:
    """The p x p cells, those that the MLP sees filled, the centre framed; returns how many it sees."""
    p, kept = config.patch, set(offsets(config) or neighbor_offsets(config.patch))
    cell = 2.6 / p
    for row in range(p):
        for column in range(p):
            offset = (row - p // 2, column - p // 2)
            middle = offset == (0, 0)
            box = Rectangle((column * cell, 1.3 - (row + 1) * cell), cell, cell, linewidth=1.8 if middle else 0.6,
                            facecolor="#bfd7ea" if offset in kept else "white", zorder=2 if middle else 1,
                            edgecolor=COLORS[1] if middle else "#888888")  # fmt: skip
            ax.add_patch(box)
    centre = "with" if (0, 0) in kept else "without"
    ax.text(1.3, -1.45, f"N_p(x): {len(kept)} of {p} × {p} cells,\n{centre} the centre", ha="center", va="top",
            fontsize=9)  # fmt: skip
    return len(kept)


def _corner(name: str) -> tuple[float, float]:
    column, middle, height = _PLACES[name]
    return column * _STEP, middle - height / 2


def _say(ax: Axes, x: float, y: float, lines: Sequence[str]) -> None:
    """Lines around a point, the first bold."""
    for k, line in enumerate(lines):
        offset = 11.5 * ((len(lines) - 1) / 2 - k)
        ax.annotate(line, (x, y), xytext=(0, offset), textcoords="offset points", ha="center", va="center",
                    fontsize=8 if k else 8.5, fontweight="normal" if k else "bold")  # fmt: skip


def _bar(ax: Axes, x: float, width: int, color: str, below: str) -> None:
    height = 2.6 * min(1.0, float(np.log2(width)) / 20)
    ax.add_patch(Rectangle((x - 0.13, -height / 2), 0.26, height, facecolor=color, edgecolor="#444444"))
    ax.text(x, -1.45, below, ha="center", va="top", fontsize=8.5)


def _path(ax: Axes, *points: tuple[float, float]) -> None:
    """A line from corner to corner that ends in an arrow."""
    if len(points) > 2:
        ax.plot(*zip(*points[:-1], strict=True), color="#444444", linewidth=0.9)
    arrow = FancyArrowPatch(points[-2], points[-1], arrowstyle="-|>", mutation_scale=9, color="#444444",
                            linewidth=0.9, shrinkA=0, shrinkB=0)  # fmt: skip
    ax.add_patch(arrow)


def _bare(ax: Axes, title: str) -> Axes:
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_title(title, fontsize=10)
    return ax
