"""Every difference between the paper and the authors' code, in one table: docs/PAPER_VS_RELEASED.md is made from it.

A difference that replaces a step has its name in `PNIConfig.released`; one that is only a value is that setting's value
in the profile "released".  Numbers B1 ... B38 are used throughout the kit.
"""

from dataclasses import dataclass

from pnilib.config import PNIConfig

__all__ = ["DIFFERENCES", "Difference", "markdown"]


@dataclass(frozen=True)
class Difference:
    """One of them.  steps: names in `released`; settings: whose values differ, or decide where the paper is silent."""

    number: str
    topic: str
    paper: str
    released: str
    steps: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    note: str = ""

    def switch(self) -> str:
        """How this kit has it: steps, settings with their default and the *released* value, a note."""
        default, preset = PNIConfig(), PNIConfig.profile("released")
        parts = [f"`released`: {name}" for name in self.steps]
        for name in self.settings:
            ours, theirs = getattr(default, name), getattr(preset, name)
            parts.append(f"`{name}`: {_text(ours)}" + (f", *{_text(theirs)}*" if theirs != ours else ""))
        return "; ".join([*parts, *([self.note] if self.note else [])])


def _text(value: object) -> str:
    return f"{value:.15g}" if isinstance(value, float) else str(value)


DIFFERENCES = (
    Difference(
        "B1",
        "the centre in the MLP's input",
        "left out, eq. (7)",
        "stays in; its right neighbor is dropped instead, so the network can read the answer",
        steps=("centre_leak",),
    ),
    Difference(
        "B2", "dropout in the MLP", "none", "0.5 after each of the nine hidden layers", settings=("mlp_dropout",)
    ),
    Difference(
        "B3",
        "aggregation patch and d",
        "sec. 2, no numbers",
        "5 and 1024",
        settings=("agg_patch", "dim"),
        note="silent: as released",
    ),
    Difference(
        "B4",
        "bins of the position histogram",
        "C_dist, Algorithm 1",
        "C_emb: finer bins, stricter gate",
        steps=("emb_bins",),
    ),
    Difference(
        "B5",
        "combining the two sources",
        "mean of the probabilities, one gate, eq. (6): either source admits a feature",
        "mean of two gated scores: a veto by one source counts half",
        settings=("combine",),
        note="ours: product",
    ),
    Difference(
        "B6",
        "indices in the neighborhood gate",
        "the gate of c asks c's own entry of C_dist, sec. 3.2",
        "the rank of the nearest admitted C_dist vector is used as a rank in C_emb: smaller penalties",
        steps=("rank_transfer",),
    ),
    Difference(
        "B7",
        "how far the gate searches",
        "all of C_emb, eq. (4)",
        "the loop's result arrays are not shared between its 8 processes: only the first 1/8 of the ranks counts",
        steps=("first_eighth",),
    ),
    Difference(
        "B8",
        "nothing passes the gate",
        "cannot happen below 1/E, sec. 3.1",
        "the farthest vector is forced open; seen only together with B7",
        steps=("first_eighth",),
    ),
    Difference(
        "B9",
        "gate threshold",
        "1/(2E), sec. 3.1",
        "the same; 1/(2D) stands in a comment",
        steps=("dist_threshold",),
        note="to compare; not in the preset",
    ),
    Difference(
        "B10",
        "likelihood",
        "exp(-d), lambda = 1, eq. (8)",
        "0.99 exp(-0.99 d): an affine change of every score, without effect on rankings",
        steps=("density",),
        settings=("lambda_",),
    ),
    Difference(
        "B11",
        "who may enter the coresets",
        "all normal features, sec. 3.1",
        "only cells two or more from the border; a second, full coreset for the baseline and for position alone",
        settings=("border", "border_cells"),
        note="the paper is silent",
    ),
    Difference(
        "B12",
        "border of the map",
        "-",
        "two cells repeated outwards, but only with the neighborhood source: A and B, E are not like for like",
        settings=("border",),
        note="ours treats every setting alike",
    ),
    Difference(
        "B13", "who votes in the histogram", "all positions, Algorithm 1", "inner cells only", settings=("border",)
    ),
    Difference("B14", "cells that train the MLP", "-", "inner cells only", settings=("border",)),
    Difference("B15", "neighbors outside the map", "-", "zeros", settings=("nb_pad",), note="silent: as released"),
    Difference(
        "B16",
        "choosing the MLP's epoch",
        "not mentioned",
        "best loss on 10 % of the patches, drawn at random, so that overlapping windows fall on both sides",
        steps=("best_epoch",),
    ),
    Difference(
        "B17",
        "greedy selection",
        "k-center of [23]",
        "after a sparse random projection, with 1e-6 added to each difference; the random start is not kept",
        steps=("sparse_projection", "start_dropped"),
        note="the 1e-6 is not copied",
    ),
    Difference(
        "B18",
        "C_dist is a subset of C_emb",
        "yes, sec. 3.2",
        "not for toothbrush (E = 1,881 < D = 2,048), nor for small ratios",
        note="none: with `emb_ratio` too small for `dist_size`, C_dist is all of C_emb",
    ),
    Difference(
        "B19", "files of the ratio ablation", "-", "ratios 0.0025 and 0.005 share a file name", note="none: not copied"
    ),
    Difference(
        "B20",
        "resizing",
        "to 512 x 512, sec. 4.1",
        "shorter edge to 512: differs on images that are not square (VisA, BTAD-01)",
        settings=("resize",),
    ),
    Difference(
        "B21",
        "resizing masks",
        "-",
        "bilinear, then floor: defects lose up to a pixel all round",
        settings=("mask_resize",),
        note="the paper is silent",
    ),
    Difference(
        "B22", "smoothing", "sigma 8 'as described in [21]'", "8 px; PatchCore [21] itself uses 4", settings=("sigma",)
    ),
    Difference(
        "B23",
        "image score",
        "not defined",
        "four versions in four scripts; averaging backbones, un-normalised top 1 % (B26)",
        steps=("reweighted",),
        settings=("image_score",),
        note="silent; reweighted is for setting A alone: with gated scores it would turn negative",
    ),
    Difference(
        "B24",
        "baseline",
        "'identical to PatchCore', sec. 4.2",
        "distances not squared, one neighbor for the map, its own image score: AUPRO 89.90 against PatchCore's 93.4",
        settings=("baseline", "baseline_neighbors"),
    ),
    Difference(
        "B25",
        "scaling before averaging backbones",
        "-",
        "minimum and maximum over the test images of the category: transductive",
        settings=("ens_norm",),
        note="ours",
    ),
    Difference(
        "B26",
        "image score of the ensemble",
        "-",
        "mean of the top 1 % of un-normalised maps, later overwritten by the maximum",
        note="none: the same `image_score` as without an ensemble",
    ),
    Difference(
        "B27",
        "BTAD category 03",
        "1,800 training images, sec. 4.1",
        "the first half of them",
        note="option btad03_half of the data set, off",
    ),
    Difference("B28", "VisA", "results in Table 6", "no loader", note="own loader"),
    Difference(
        "B29", "seeds", "-", "one, no spread", settings=("seed",), note="`pni reproduce` takes three where it can"
    ),
    Difference(
        "B30",
        "what the refinement network gives",
        "A_tilde itself, eq. (9)",
        "what to add to A_hat",
        steps=("residual",),
    ),
    Difference("B31", "fusing the two stems", "element-wise sum, S2", "mean", steps=("mean_of_stems",)),
    Difference(
        "B32",
        "the map's stem",
        "one of 4 input channels, sec. 3.3",
        "the map three times, through a second pretrained stem; both start as the same function here",
        steps=("three_map_channels",),
    ),
    Difference(
        "B33",
        "regression loss",
        "L2 norm / HW, eqs. (10), (11): every image weighs alike",
        "squared error: bad images weigh more",
        settings=("refine_loss",),
        note="Table 4: ce, focal",
    ),
    Difference(
        "B34",
        "colour change in training",
        "named, not described",
        "lighting noise, and three brightness changes; contrast and saturation were meant",
        steps=("three_brightnesses",),
        settings=("refine_jitter_size",),
        note="the lighting noise is not copied",
    ),
    Difference(
        "B35",
        "geometry of the refinement",
        "aligned (implied)",
        "the map loses 11 of 320 px a side and is stretched, the refined one 8 of 256 more: up to 30 px off at 480",
        steps=("misaligned",),
    ),
    Difference(
        "B36",
        "synthetic defects",
        "CutPaste, scar, DRAEM, manual drawing 'with the same ratio', sec. 3.3",
        "none released",
        settings=("defects",),
        note="our own generators of the four; natural is a fifth",
    ),
    Difference(
        "B37",
        "training",
        "55,000 iterations, batch 8, Adam 1e-4, sec. 4.1",
        "evaluation hard-coded; a training branch that needs editing",
        settings=(
            "refine_iterations",
            "refine_batch",
            "refine_lr",
            "refine_weight",
        ),
    ),
    Difference(
        "B38",
        "scope of a network",
        "not said",
        "one checkpoint for all categories",
        settings=("refine_scope",),
        note="the paper is silent",
    ),
)
"""In the order of their numbers."""


def markdown(effects: dict[str, str]) -> str:
    """The table; `effects`: number -> what it was measured to do."""
    rows = [
        "| # | topic | paper | released | our switch: default, *released* | measured |",
        "|---|---|---|---|---|---|",
    ]
    for one in DIFFERENCES:
        cells = (one.number, one.topic, one.paper, one.released, one.switch(), effects.get(one.number, ""))
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)
