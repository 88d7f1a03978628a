"""Pictures of p(c | N_p(x)) and p(c | x): what a source sees, how sure it is, which bins its gate lets through.

`Axes` in, `Axes` out; probabilities are drawn on a logarithmic axis, because a gate at tau = 1 / (2 |C_emb|)
(PNI sec. 3.1) cuts far below what a linear axis can show.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy import ndarray

from pnilib.errors import PNIError

__all__ = ["COLORS", "draw_cdf", "draw_losses", "draw_neighbors", "draw_ranked", "draw_reliability", "draw_votes"]

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
"""Okabe and Ito's palette: told apart with every kind of colour vision."""
FLOOR = 1e-6
"""smallest probability drawn; zero is drawn here."""


def draw_neighbors(patch: int, offsets: Sequence[tuple[int, int]], ax: Axes, *, title: str = "") -> Axes:
    """The p x p window with its row-major element numbers; inputs of the MLP filled, what is left out white."""
    kept, reach = set(offsets), patch // 2
    for k in range(patch**2):
        row, column = k // patch - reach, k % patch - reach
        used, middle = (row, column) in kept, (row, column) == (0, 0)
        ax.add_patch(
            Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor="#bfd7ea" if used else "white",
                      edgecolor=COLORS[1] if middle else "#888888", linewidth=2.5 if middle else 0.6,
                      zorder=2 if middle else 1)
        )  # fmt: skip
        ax.text(column, row, str(k), ha="center", va="center", fontsize=7, color="black", zorder=3)
    ax.set(xlim=(-reach - 0.7, reach + 0.7), ylim=(reach + 0.7, -reach - 0.7), xticks=[], yticks=[], aspect="equal")
    ax.set_title(title, fontsize=10)
    return ax


def draw_losses(histories: Mapping[str, Sequence[Mapping[str, float]]], n_dist: int, ax: Axes) -> Axes:
    """Cross-entropy (nats) an epoch of some trainings, against log |C_dist|: the loss of a uniform guess."""
    for (name, history), color, style in zip(histories.items(), cycle(COLORS), cycle(("o-", "s--")), strict=False):
        ax.plot([row["epoch"] for row in history], [row["loss"] for row in history], style, color=color, label=name)
    ax.axhline(np.log(n_dist), color="black", linestyle=":", label=f"uniform guess, log {n_dist}")
    ax.set(xlabel="epoch", ylabel="training loss, nats", ylim=(0, 1.12 * np.log(n_dist)))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(fontsize=8, loc="upper right")
    return ax


def draw_reliability(
    confidence: Float[ndarray, " n"],
    correct: Bool[ndarray, " n"],
    ax: Axes,
    *,
    label: str,
    color: str,
    n_bins: int = 10,
) -> Axes:
    """Share of right answers against stated confidence, in bins of equal counts; honest = on the diagonal.

    Raises PNIError with fewer answers than bins.
    """
    if len(confidence) < n_bins:
        raise PNIError(f"{len(confidence)} answers in {n_bins} bins: give more answers or ask for fewer bins")
    parts = np.array_split(np.argsort(confidence, kind="stable"), n_bins)
    ax.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle="--")
    ax.plot([confidence[p].mean() for p in parts], [correct[p].mean() for p in parts], "o-", color=color, label=label)
    ax.set(xlabel="stated probability of the likeliest bin", ylabel="share of cells where it is right",
           xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")  # fmt: skip
    return ax


def draw_ranked(probabilities: Mapping[str, Float[ndarray, " m"]], threshold: float, ax: Axes) -> Axes:
    """Probabilities of all bins at one cell, largest first, and tau; zeros lie on the lower edge."""
    for (name, p), color in zip(probabilities.items(), cycle(COLORS), strict=False):
        n_open = int((p > threshold).sum())
        ax.plot(
            np.arange(1, len(p) + 1), np.sort(p)[::-1].clip(FLOOR), color=color, label=f"{name}: {n_open} above tau"
        )
    ax.axhline(threshold, color="black", linestyle="--", label=f"tau = {threshold:.2g}")
    ax.set(xscale="log", yscale="log", xlabel="rank of the bin", ylabel="probability (0 at the lower edge)")
    ax.set_ylim(FLOOR, 2)
    ax.legend(fontsize=8, loc="upper right")
    return ax


def draw_cdf(samples: Mapping[str, Float[ndarray, "..."]], threshold: float, ax: Axes, *, xlabel: str) -> Axes:
    """Share of samples at or below each probability; read the share that a gate at `threshold` refuses off the line.

    Each name of `samples` gets one curve.  Raises PNIError for an empty sample.
    """
    for (name, sample), color, style in zip(samples.items(), cycle(COLORS), cycle(("-", "--")), strict=False):
        values = np.sort(np.asarray(sample).ravel())
        if len(values) == 0:
            raise PNIError(f"sample {name!r} is empty: there is no distribution to draw")
        share = np.arange(1, len(values) + 1) / len(values)
        ax.step(values.clip(FLOOR), share, where="post", color=color, linestyle=style, label=name)
    ax.axvline(threshold, color="black", linestyle=":", label=f"tau = {threshold:.2g}")
    ax.set(xscale="log", xlim=(FLOOR, 1.3), ylim=(0, 1.02), xlabel=xlabel, ylabel="share of cells at or below")
    ax.legend(fontsize=8, loc="upper right")
    return ax


def draw_votes(counts: Float[ndarray, "cells bins"], ax: Axes, *, title: str = "") -> Axes:
    """Votes of a few cells for a few bins as stacked bars, one bar a cell, the counts written in."""
    below = np.zeros(len(counts))
    for bin_idx, color in zip(range(counts.shape[1]), cycle(COLORS), strict=False):
        votes = counts[:, bin_idx]
        ax.bar(np.arange(len(counts)), votes, bottom=below, color=color, label=f"bin {bin_idx}")
        for cell, vote in enumerate(votes):
            if vote > 0:
                ax.text(cell, below[cell] + vote / 2, f"{vote:g}", ha="center", va="center", color="white")
        below += votes
    ax.set(xticks=range(len(counts)), xlabel="cell x", ylabel="votes")
    ax.set_title(title, fontsize=10)
    ax.legend(fontsize=8, loc="upper right")
    return ax
