"""The refinement network drawn from the module itself (PNI Figures 4 and S2).

`network_steps` runs the network without data and notes what each part gives, so that the drawing cannot disagree with
the code.  `Axes` in, `Axes` out; nothing is saved.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from torch import Tensor, nn

from pnilib.config import PNIConfig
from pnilib.detector.steps import network_class
from pnilib.errors import PNIError
from pnilib.plots.distributions import COLORS

__all__ = ["Step", "draw_details", "draw_schema", "network_steps"]


class Step(NamedTuple):
    """One box of the drawing.

    operations: one line each in the notation of Figure S2: kernel, channels, stride unless 1, then what follows the
    convolution (or precedes it, in dense blocks and transitions).  channels, height, width: of the output.
    parameters: numbers learned.
    """

    name: str
    operations: tuple[str, ...]
    channels: int
    height: int
    width: int
    parameters: int


def network_steps(config: PNIConfig, side: int) -> list[Step]:
    """The refinement network of a configuration on side x side px, in running order: inputs, stems, fusion, encoder,
    decoder, output.

    The network exists as shapes only, so that any size is quick.  Raises PNIError for a side below 1, and what
    RefineNet raises.
    """
    if side < 1:
        raise PNIError(f"a picture of {side} px has no shape: give a side of 1 px or more")
    entered: dict[nn.Module, Any] = {}
    left: dict[nn.Module, torch.Size] = {}

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        entered[module], left[module] = inputs[0], output.shape

    with torch.device("meta"), torch.no_grad():
        network = network_class(config)(config).eval()
        for module in network.modules():
            module.register_forward_hook(note)
        network(torch.empty(1, 3, side, side), torch.empty(1, 1, side, side))

    def step(name: str, operations: Sequence[str], *modules: nn.Module) -> Step:
        _, c, h, w = left[modules[-1]]
        return Step(name, tuple(operations), c, h, w, sum(p.numel() for m in modules for p in m.parameters()))

    steps = [Step("I", (), 3, side, side, 0), Step("Â", (), 1, side, side, 0)]
    steps.append(step("stem of I", _operations(network.image_stem), network.image_stem))
    steps.append(step("stem of Â", _operations(network.map_stem), network.map_stem))
    _, c, h, w = entered[network.stages[0]].shape
    steps.append(Step("fusion", ("mean" if "mean_of_stems" in config.released else "sum",), c, h, w, 0))
    for k, stage in enumerate(network.stages, 1):
        parts = list(stage.children())
        if k > 1:
            steps.append(step(f"transition {k - 1}", _operations(parts[0]), parts[0]))
        block, *after = parts[1 if k > 1 else 0 :]
        layers = list(block.children())
        lines = [*_operations(layers[0]), f"{len(layers)} times, appended"]
        if after:
            lines.append(_after(after))
        steps.append(step(f"dense block {k}", lines, block, *after))
    steps.append(step("compress", _operations(network.compress), network.compress))
    for k, up in enumerate(network.up, 1):
        before, after_up = entered[up].shape, entered[up.first[0]].shape  # type: ignore[index]
        lines = [f"bilinear ×{after_up[2] // before[2]}"]
        if after_up[1] > before[1]:
            lines.append(f"with {after_up[1] - before[1]} of {_source(steps, after_up[1] - before[1], after_up[2])}")
        steps.append(step(f"up {k}", [*lines, *_operations(up)], up))
    steps.append(step("head", _operations(network.head), network.head))
    added = ("+ Â",) if "residual" in config.released else ()
    squashed = ("sigmoid",) if config.refine_loss in ("ce", "focal") else ()
    _, c, h, w = left[network]
    return [*steps, Step("Ã", added + squashed, c, h, w, 0)]


def _operations(module: nn.Module) -> list[str]:
    """The leaves of a module, a line for each convolution or pooling, in the notation of Figure S2."""
    leaves = [leaf for leaf in module.modules() if not list(leaf.children()) and not isinstance(leaf, nn.Identity)]
    before = isinstance(leaves[0], nn.BatchNorm2d)  # DenseNet's layers normalise before they convolve
    lines: list[list[str]] = [[]]
    for leaf in leaves:
        ends_line = any("×" in word for word in lines[-1])
        if ends_line and (before or not isinstance(leaf, nn.BatchNorm2d | nn.ReLU)):
            lines.append([])
        lines[-1].append(_word(leaf))
    return [", ".join(line) for line in lines]


def _word(leaf: nn.Module) -> str:
    if isinstance(leaf, nn.Conv2d):
        kernel, stride = leaf.kernel_size[0], leaf.stride[0]
        return f"{kernel}×{kernel}, {leaf.out_channels}" + (f", S{stride}" if stride > 1 else "")
    if isinstance(leaf, nn.MaxPool2d | nn.AvgPool2d):
        kind = "max" if isinstance(leaf, nn.MaxPool2d) else "mean"
        return f"{kind} {leaf.kernel_size}×{leaf.kernel_size}, S{leaf.stride}"
    return {"BatchNorm2d": "BN"}.get(type(leaf).__name__, type(leaf).__name__)


def _after(modules: Sequence[nn.Module]) -> str:
    return ", ".join(word for module in modules for word in _operations(module))


def _source(steps: Sequence[Step], channels: int, height: int) -> str:
    """Which step so far gives that many channels at that resolution; the inputs have four."""
    found = [s.name for s in steps if s.name.startswith("dense") and (s.channels, s.height) == (channels, height)]
    return found[0] if found else "I, Â"


_SHADES = {"stem": "#bfd7ea", "fusion": "#dddddd", "dense": "#f5c9a3", "transition": "#fbe6d0", "up": "#b9dfc7",
           "compress": "#d8ecdf", "head": "#d8ecdf"}  # fmt: skip


def _shade(name: str) -> str:
    return _SHADES.get(name.split()[0], "white")


def draw_schema(steps: Sequence[Step], ax: Axes, *, title: str = "") -> Axes:
    """As Figure 4: a box a step, as high as its output (logarithmic), channels and size below; arcs are skips.

    The two inputs and their stems run in parallel up to the fusion.
    """
    x, size = 0.0, {step.name: 1.7 + 0.35 * np.log2(step.height) for step in steps}
    low = -0.5 * max(size.values()) - 0.15
    place: dict[str, tuple[float, float]] = {}
    for step in steps:
        image, is_map = step.name in ("I", "stem of I"), step.name in ("Â", "stem of Â")
        shift = 0.5 * max(size.values()) + 0.55
        y = shift if image else -shift if is_map else 0.0
        x += 0.0 if is_map else 1.0
        place[step.name] = x, y
        height = size[step.name]
        ax.add_patch(
            Rectangle((x - 0.3, y - height / 2), 0.6, height, facecolor=_shade(step.name), edgecolor="#444444")
        )
        ax.text(x, y, step.name, rotation=90 if len(step.name) > 2 else 0, ha="center", va="center", fontsize=9)
        below = y - height / 2 if image or is_map else low
        ax.text(x, below - 0.1, f"{step.channels}\n{step.height}²", ha="center", va="top", fontsize=8.5)
    spine = [step.name for step in steps if step.name not in ("I", "Â", "stem of I", "stem of Â")]
    pairs = [("I", "stem of I"), ("Â", "stem of Â"), ("stem of I", "fusion"), ("stem of Â", "fusion")]
    for start, end in [*pairs, *pairwise(spine)]:
        _arrow(ax, (place[start][0] + 0.3, place[start][1]), (place[end][0] - 0.3, place[end][1]))
    for step in steps:
        for line in step.operations:
            if line.startswith("with "):
                start = line.split(" of ")[1]
                (x0, y0), (x1, _) = place[start if start in place else "I"], place[step.name]
                begin = (x0, y0 + size.get(start, size["I"]) / 2)
                bend = -0.22 if start in place else -0.08
                _arrow(ax, begin, (x1, size[step.name] / 2), bend=bend, color=COLORS[0])
    top = place["I"][1] + size["I"] / 2
    ax.set(xlim=(0.4, x + 0.6), ylim=(-top - 1.2, top + 1.2), xticks=[], yticks=[])
    for spine_line in ax.spines.values():
        spine_line.set_visible(False)
    ax.set_title(title, fontsize=10)
    return ax


def draw_details(steps: Sequence[Step], ax: Axes, *, title: str = "") -> Axes:
    """As Figure S2: a card a step with its operations; at its foot channels × height × width of the output."""
    above = [[s for s in steps if s.name in pair] for pair in (("I", "Â"), ("stem of I", "stem of Â"))]
    encoder = [[s] for s in steps if s.name.startswith(("fusion", "dense", "transition"))]
    decoder = [[s] for s in steps if s.name.startswith(("compress", "up", "head", "Ã"))]
    rows = [[*above, *encoder], decoder]
    columns = max(len(row) for row in rows)
    for y, row in zip((1.15, 0.0), rows, strict=True):
        for x, cards in enumerate(row):
            height = 1.0 / len(cards)
            for k, step in enumerate(cards):
                _card(step, x, y + 1.0 - (k + 1) * height, height, ax)
            if x + 1 < len(row):
                _arrow(ax, (x + 0.94, y + 0.5), (x + 1.0, y + 0.5))
    ax.set(xlim=(-0.05, columns), ylim=(-0.05, 2.2), xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_title(title, fontsize=10)
    return ax


def _card(step: Step, x: float, y: float, height: float, ax: Axes) -> None:
    box = FancyBboxPatch(
        (x + 0.02, y + 0.02), 0.9, height - 0.04, boxstyle="round,pad=0,rounding_size=0.03",
        facecolor=_shade(step.name), edgecolor="#444444",
    )  # fmt: skip
    ax.add_patch(box)
    ax.text(x + 0.47, y + height - 0.05, step.name, ha="center", va="top", fontsize=9, fontweight="bold")
    ax.text(x + 0.47, y + height / 2, _wrapped(step.operations), ha="center", va="center", fontsize=8)
    ax.text(x + 0.47, y + 0.05, f"{step.channels} × {step.height} × {step.width}", ha="center", va="bottom", fontsize=8)


def _wrapped(operations: Sequence[str]) -> str:
    """Lines short enough for a card."""
    return "\n".join(operations).replace(", BN", "\nBN").replace(" of dense", " of\ndense")


def _arrow(
    ax: Axes, start: tuple[float, float], end: tuple[float, float], *, bend: float = 0.0, color: str = "#444444"
) -> None:
    ax.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=8, color=color, linewidth=0.9, shrinkA=0,
                        shrinkB=0, connectionstyle=f"arc3,rad={bend}")
    )  # fmt: skip
