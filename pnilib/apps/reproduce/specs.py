"""Which tables there are: those of the paper, and ours (X1 to X4) beside them."""

from dataclasses import dataclass, field

from pnilib.apps.reproduce.settings import BACKBONES, DETECTOR, ENSEMBLE, REFINED, RELEASED, SOFT

__all__ = ["LETTERS", "TABLES", "TableSpec"]

_DETECTION, _LOCALISATION, _REGIONS, _PIXELS = "i_auroc", "p_auroc", "aupro_30", "p_f1_max"
_BOTH = (_DETECTION, _LOCALISATION)
_THREE = (*_BOTH, _REGIONS)
_FOUR = (*_THREE, _PIXELS)


@dataclass(frozen=True)
class TableSpec:
    """One table.  methods: as printed -> our setting; printed methods beyond them are shown as published.
    role: whose categories.  every: each category, with methods as columns, not only the averages."""

    number: str
    title: str
    methods: dict[str, str] = field(default_factory=dict)
    metrics: tuple[str, ...] = _THREE
    role: str = "mvtec"
    every: bool = False

    @property
    def id(self) -> str:
        """Its name on the command line and of its files, as `table-3`."""
        return self.number.lower().replace(" ", "-")

    @property
    def settings(self) -> list[str]:
        """Whose runs it shows."""
        return [*self.methods.values(), *([BACKBONES] if self.number == "Table X4" else [])]


LETTERS = [*DETECTOR, *(name for name in REFINED if len(name) == 1), "PNI", ENSEMBLE]
"""The paper's ablation settings."""


def _same(*names: str) -> dict[str, str]:
    """Settings that are called as the paper prints them."""
    return dict(zip(names, names, strict=True))


_PNI, _OURS, _MAIN, _ABLATION = _same("PNI"), _same("PNI", ENSEMBLE), _same("A", "B", "E", "PNI"), _same(*LETTERS)
_LOSSES = {
    "Trained by l_CE": "cross-entropy (ensemble)",
    "Trained by l_focal": "focal (ensemble)",
    ENSEMBLE: ENSEMBLE,
}
_SOURCES = {
    "A: neither": "A",
    "B: neighborhood gate": "B",
    "position gate": "position",
    "E: eq. (6)": "E prob",
    "E: mean of two scores (the release)": "E score",
    "E: product (ours)": "E product",
    "soft veto of the place (ours)": SOFT,
}
_FEATURES = {"A": "A", "position gate": "position", "E": "E"}
TABLES: dict[str, TableSpec] = {
    spec.id: spec
    for spec in (
        TableSpec("Table 1", "detection and localization, category by category", _PNI, _BOTH, every=True),
        TableSpec("Table 2", "summary against other methods", _OURS),
        TableSpec(
            "Table 3", "neighborhood (B), position (E) and refinement (PNI), one after the other", _MAIN,
            (_DETECTION, _LOCALISATION, _PIXELS),
        ),
        TableSpec("Table 4", "losses of the refinement network, ensembles", _LOSSES),
        TableSpec("Table 5", "localization on BTAD", _PNI, (_LOCALISATION,), "btad", every=True),
        TableSpec("Table 6", "detection and localization on VisA", _PNI, _BOTH, "visa"),
        TableSpec("Table S1", "which model of each method is compared"),
        TableSpec("Table S2", "summary against other methods, all of them", _OURS),
        TableSpec("Table S3", "I-AUROC, category by category", _OURS, (_DETECTION,), every=True),
        TableSpec("Table S4", "P-AUROC, category by category", _OURS, (_LOCALISATION,), every=True),
        TableSpec("Table S5", "AUPRO, category by category", _OURS, (_REGIONS,), every=True),
        TableSpec("Table S6", "VisA, category by category", _PNI, _BOTH, "visa", every=True),
        TableSpec("Table S7", "what the settings are made of"),
        TableSpec("Table S8", "ablation, summary", _ABLATION),
        TableSpec("Table S9", "ablation, I-AUROC, category by category", _ABLATION, (_DETECTION,), every=True),
        TableSpec("Table S10", "ablation, P-AUROC, category by category", _ABLATION, (_LOCALISATION,), every=True),
        TableSpec("Table S11", "ablation, AUPRO, category by category", _ABLATION, (_REGIONS,), every=True),
        TableSpec(
            "Table X1", "ours: the released code beside the paper's settings", _MAIN | {RELEASED: RELEASED}, _FOUR
        ),
        TableSpec("Table X2", "ours: what each difference of the released code is worth", metrics=_FOUR),
        TableSpec("Table X3", "ours: every way to use the two sources", _SOURCES, _FOUR),
        TableSpec("Table X4", "ours: what the features are worth", _FEATURES),
    )
}  # fmt: skip
"""id -> specification; S1 has text alone, S7 is made of the configurations themselves."""
