"""What is compared: the paper's ablation settings (Table S7), the losses of Table 4, the release, its switches.

Everything is an override of one base configuration, the profile's; `RATIO` settings name the share of its |C_emb|.
"""

from typing import Any

from pnilib.config import REFINED_SETTINGS
from pnilib.published import GROUPS, TEXTURES

__all__ = [
    "BACKBONES",
    "COMBINED",
    "DETECTOR",
    "ENSEMBLE",
    "ENSEMBLES",
    "MEMBERS",
    "OFFLINE",
    "PAPER_DATA",
    "REFINED",
    "RELEASED",
    "RULES",
    "SINGLE",
    "SOFT",
    "SPECIAL",
    "SWITCHES",
    "kinds",
]

PAPER_DATA = {"mvtec": "MVTec AD", "btad": "BTAD", "visa": "VisA"}
"""The paper's data sets by the name of their layout."""

RATIO = {"C": 0.25, "D": 0.5, "E": 1.0, "F": 2.0}
"""Table S7's subsampling ratios 0.0025, 0.005, 0.01 and 0.02, in units of the paper's 0.01."""

DETECTOR: dict[str, tuple[float, dict[str, Any]]] = {
    "A": (1.0, dict(setting="A")),
    "B": (1.0, dict(setting="B")),
    **{name: (ratio, dict(setting="E")) for name, ratio in RATIO.items()},
}
"""Settings without refinement: share of the base's emb_ratio, overrides."""

COMBINED: dict[str, dict[str, Any]] = {
    "position": dict(setting="position", gate="hard"),
    "E prob": dict(setting="E", combine="prob"),
    "E score": dict(setting="E", combine="score"),
    "E product": dict(setting="E", combine="product"),
}
"""Further ways to use the two sources, scored on the detector's fit (Table X3)."""

BACKBONES = "backbones"
"""Stands for the detectors of all backbones (Table X4)."""

SOFT = "soft"
"""The soft veto of the place (ours), fitted by itself since its constants depend on the coreset's size."""

LOSSES: dict[str, dict[str, Any]] = {"cross-entropy": dict(refine_loss="ce"), "focal": dict(refine_loss="focal")}
"""Table 4's alternatives to l2 with gradient loss."""

REFINED: dict[str, dict[str, Any]] = REFINED_SETTINGS | LOSSES
"""Settings with a network each, on the maps of setting E; those of equal `defects` share their synthetic images."""

ENSEMBLE = "PNI (ensemble)"
ENSEMBLES = {
    ENSEMBLE: "PNI",
    "cross-entropy (ensemble)": "cross-entropy",
    "focal (ensemble)": "focal",
}
"""Mean of the backbones' scaled maps -> of which setting (Table 4 compares ensembles)."""

SINGLE = {name: setting for name, setting in ENSEMBLES.items() if setting in LOSSES}
"""With embedded backbones Table 4 compares single networks instead: two networks fewer a loss and category."""
OFFLINE = ("small", "scattering", "demo", "smoke")
"""Profiles with embedded backbones."""

RELEASED = "released"
"""Setting E as the released code computes it: every switch of docs/PAPER_VS_RELEASED.md up to the anomaly map."""

_PAPER_MEMBERS = {name: dict(backbone=name) for name in ("wide_resnet101_2", "resnext101_32x8d", "densenet201")}
_WITHOUT_WEIGHTS: dict[str, Any] = dict(backbone="scattering", aggregation="pool", feature_norm="half_whiten", dim=128)
_SCATTERING_MEMBERS: dict[str, dict[str, Any]] = {
    "scattering": {},
    "scattering, single cells": dict(agg_patch=1),
    "resnet18 random": dict(backbone="resnet18", weights="random", agg_patch=1, feature_norm="half_whiten"),
}
_SMALL_MEMBERS: dict[str, dict[str, Any]] = {
    "EfficientNet-Lite0": {},
    "EfficientNet-Lite0, three levels": dict(levels="4,8,16"),
    "scattering": _WITHOUT_WEIGHTS,
}
_DEMO_MEMBERS: dict[str, dict[str, Any]] = {
    "EfficientNet-Lite0": {},
    "EfficientNet-Lite0, one level": dict(levels="8"),
    "scattering": _WITHOUT_WEIGHTS,
}
MEMBERS: dict[str, dict[str, dict[str, Any]]] = {
    "paper": _PAPER_MEMBERS,
    "released": _PAPER_MEMBERS,
    "small": _SMALL_MEMBERS,
    "scattering": _SCATTERING_MEMBERS,
    "demo": _DEMO_MEMBERS,
    "smoke": _DEMO_MEMBERS,
}
"""Backbones of the ensemble by profile; the first is the single model's."""

SPECIAL: dict[str, dict[str, Any]] = {
    "small": dict(combine="prob"),
    "demo": dict(combine="score", pool_maps="leave_out", refine_iterations=200, pool_images=150),
    "smoke": dict(combine="score", pool_images=16, refine_iterations=8, calibration_images=4),
}
"""What a reproduction changes in a profile: E is the paper's eq. (6); but with it E would equal A on the demo data
(README), whose 60 minutes allow shorter trainings than `pni refine` does, too."""

RULES: dict[str, dict[str, Any]] = {
    "prob": dict(setting="E", combine="prob"),  # the released gate by rank has no one probability
    "score": dict(setting="E", combine="score"),
    "A": dict(setting="A"),
}
"""What switches are thrown on: setting E under the paper's and the release's combining rule; the baseline, for those
that exist without gates alone."""

SWITCHES: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "B1": ("the centre leaks into the MLP's window", dict(released="centre_leak"), ("prob", "score")),
    "B2": ("dropout 0.5 in the MLP", dict(mlp_dropout=0.5), ("prob", "score")),
    "B4": ("histogram over C_emb", dict(released="emb_bins"), ("prob", "score")),
    "B5": ("mean of two gated scores instead of eq. (6), the OR gate", dict(combine="score"), ("prob",)),
    "B6": ("rank mix-up in the neighborhood gate", dict(released="rank_transfer"), ("score",)),
    "B7": ("only the first eighth of the ranks is searched", dict(released="first_eighth"), ("prob", "score")),
    "B9": ("tau = 1/(2D), the commented line", dict(released="dist_threshold"), ("prob", "score")),
    "B10": ("lambda 0.99 with prefactor", dict(lambda_=0.99, released="density"), ("prob", "score")),
    "B11": ("two border cells neither fit nor score (B11-B14)", dict(border="replicate"), ("prob", "score")),
    "B16": ("best epoch on 10 % of the patches", dict(released="best_epoch"), ("prob", "score")),
    "B17": (
        "sparse projection, start not kept",
        dict(released="sparse_projection,start_dropped"),
        ("prob", "score"),
    ),
    "B21": ("ground truth eroded by floor", dict(mask_resize="floor"), ("prob", "score")),
    "B22": ("half the smoothing, as PatchCore has it", dict(), ("prob", "score")),
    "B23 raw": ("image score: maximum before smoothing", dict(image_score="raw_max"), ("prob", "score")),
    "B23 top1": ("image score: mean of the top 1 %", dict(image_score="top1"), ("prob", "score")),
    "B23 reweight": ("image score: the baseline's distance, reweighted", dict(released="reweighted"), ("A",)),
}
"""The audit's switches one at a time: meaning, overrides, on top of which of RULES.  B22 halves sigma."""


def kinds(categories: list[str]) -> dict[str, list[str]]:
    """The sub-averages of a table: kind -> its categories, then `average` -> all; kinds without any are left out.

    VisA's three kinds (Table S6) for VisA's categories, none for BTAD's numbers, else object and texture.
    """
    if all(any(name in group for group in GROUPS["visa"].values()) for name in categories):
        found = {kind: [name for name in group if name in categories] for kind, group in GROUPS["visa"].items()}
    elif all(name.isdigit() for name in categories):
        found = {}
    else:
        found = {
            "object": [name for name in categories if name not in TEXTURES],
            "texture": [name for name in categories if name in TEXTURES],
        }
    return {kind: group for kind, group in found.items() if group} | {"average": list(categories)}
