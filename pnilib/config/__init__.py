"""One frozen, validated description of a run.

Every parameter lives here once, with its unit, range, paper source and the pipeline
stage that it first influences.  Defaults are the paper's; where the paper is silent the
default is marked "silent" and explained.  `B1` ... `B38` are the differences between paper and released code listed in
docs/PAPER_VS_RELEASED.md: a value of a setting here, or a step named in `released`.
"""

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pnilib.config.detector import NEEDS, SETTINGS, Coreset, Features, Input, Map, Neighborhood, Position, Scoring
from pnilib.config.fields import allowed, validated
from pnilib.config.geometry import Geometry
from pnilib.config.profiles import PROFILES
from pnilib.config.refinement import REFINED_SETTINGS, Refinement
from pnilib.config.run import RELEASED_STEPS, Run, released_names
from pnilib.errors import PNIError

__all__ = [
    "NEEDS",
    "PROFILES",
    "REFINED_SETTINGS",
    "RELEASED_STEPS",
    "SECTIONS",
    "SETTINGS",
    "STAGES",
    "PNIConfig",
    "released_names",
]

SECTIONS = (Input, Features, Coreset, Position, Neighborhood, Scoring, Map, Refinement, Run)
"""The settings, in the paper's order."""


STAGES = (
    "features",
    "coreset",
    "window",
    "position",
    "neighborhood",
    "scoring",
    "maps",
    "decision",
    "defects",
    "refinement",
    "fusion",
)
"""Pipeline order.  A field of one stage changes that stage and those built on it; `window` is what position and
neighborhood share.  (With weights=random the features depend on the seed too: their key holds the weights' hash.)"""

_PARENTS: dict[str, tuple[str, ...]] = {
    "features": (),
    "coreset": ("features",),
    "window": ("coreset",),
    "position": ("window",),
    "neighborhood": ("window",),
    "scoring": ("position", "neighborhood"),
    "maps": ("scoring",),
    "decision": ("maps",),
    "defects": ("maps",),
    "refinement": ("defects",),
    "fusion": ("refinement",),
}


@dataclass(frozen=True)
class PNIConfig(Run, Refinement, Map, Scoring, Neighborhood, Position, Coreset, Features, Input):
    """A run of PNI: the fields of all SECTIONS.  `PNIConfig()` is the paper; `PNIConfig.profile(name)` a named variant.

    Raises PNIError for an unknown name, a wrong type or a value out of range.
    """

    def __post_init__(self) -> None:
        object.__setattr__(self, "released", released_names(self.released))
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, validated(field, getattr(self, field.name)))
        if self.image_crop > self.image_resize:
            raise PNIError(
                f"image_crop={self.image_crop} is larger than image_resize={self.image_resize}: choose a crop that fits"
            )
        if "rank_transfer" in self.released and self.setting == "E" and self.combine != "score":
            raise PNIError(
                f"released=rank_transfer is a gate of its own: not with combine={self.combine}, use combine=score"
            )
        if "reweighted" in self.released and self.setting != "A":
            raise PNIError(
                f"released=reweighted weighs plain distances, and setting={self.setting} scores behind gates (mixed "
                "they turn negative): use setting=A, whose image score it is in the release, or leave it out"
            )
        if self.setting == "A" and self.baseline == "patchcore" and (self.lambda_ != 1 or "density" in self.released):
            raise PNIError(
                "baseline=patchcore is a mean squared distance, which lambda_ and released=density do not enter: set "
                "lambda_=1 and leave density out"
            )

    @classmethod
    def names(cls) -> list[str]:
        """Every field's name, in pipeline order."""
        return [f.name for f in dataclasses.fields(cls)]

    @classmethod
    def describe(cls) -> list[dict[str, Any]]:
        """One row a field: section, name, default, meaning, allowed values, stage, source."""
        section = {f.name: one for one in SECTIONS for f in dataclasses.fields(one)}
        return [
            dict(
                section=f"{section[f.name].__name__.lower()}: {section[f.name].__doc__}",
                name=f.name,
                default=f.default,
                meaning=f.metadata["doc"],
                allowed=allowed(f),
                stage=f.metadata["stage"],
                source=f.metadata["source"],
            )
            for f in dataclasses.fields(cls)
        ]

    @classmethod
    def profile(cls, name: str) -> "PNIConfig":
        """A named profile: one of PROFILES."""
        if name not in PROFILES:
            raise PNIError(f"profile {name!r} is unknown: choose one of {', '.join(PROFILES)}")
        return cls(**PROFILES[name])

    def replace(self, **overrides: Any) -> "PNIConfig":
        """A copy with some fields changed; an unknown name is refused with the nearest one."""
        for name in overrides:
            _known(name)
        return dataclasses.replace(self, **overrides)

    def under(self, setting: str) -> "PNIConfig":
        """The same run behind another setting's gates; released=reweighted, which A alone has, is left out
        elsewhere."""
        kept = [name for name in self.released if name != "reweighted" or setting == "A"]
        return self.replace(setting=setting, released=kept)

    def but(self, *names: str) -> "PNIConfig":
        """The same run without some of the release's steps.  Raises PNIError for a name that is none of them."""
        released_names(names)
        return self.replace(released=[name for name in self.released if name not in names])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self) | {"released": ",".join(self.released)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "PNIConfig":
        """Inverse of `to_dict`; unknown names are refused."""
        for name in values:
            _known(name)
        return cls(**values)

    @classmethod
    def parse_overrides(cls, pairs: list[str]) -> dict[str, Any]:
        """`["sigma=4", "gate=soft"]` -> `{"sigma": 4.0, "gate": "soft"}`."""
        kinds = {f.name: f.type for f in dataclasses.fields(cls)}
        parsed: dict[str, Any] = {}
        for pair in pairs:
            name, equals, text = pair.partition("=")
            if not equals:
                raise PNIError(f"{pair!r} is not NAME=VALUE: write for instance sigma=4")
            _known(name)
            kind: Any = kinds[name]
            try:
                parsed[name] = text if name == "released" else kind(text)
            except ValueError:
                raise PNIError(f"{name}={text}: not {'an integer' if kind is int else 'a number'}") from None
        return parsed

    def require_used(self, names: Iterable[str]) -> "PNIConfig":
        """This configuration.  Raises PNIError for a setting among `names` that it never looks at, as combine with
        setting=A: whoever asks for that expects other numbers than would come."""
        names = list(names)
        steps = [f"released={step}" for step in self.released if "released" in names]
        for name in [*names, *steps]:
            other, values = _ONLY_WITH.get(name, ("", ()))
            if other and (now := getattr(self, other)) not in values:
                need = " or ".join(f"{other}={value}" for value in values)
                raise PNIError(f"{name} counts for {need} only, not for {other}={now}: leave it out, or set {need}")
        for name, when in _WITHOUT_EFFECT:
            if name in names and all(getattr(self, other) in values for other, values in when.items()):
                found = ", ".join(f"{other}={getattr(self, other)}" for other in when)
                raise PNIError(f"{name} has no effect with {found}: leave it out, or change that")
        return self

    @property
    def geometry(self) -> Geometry:
        """How images and masks are resized and cropped."""
        return Geometry(self.image_resize, self.image_crop, self.resize, self.mask_resize, self.bit_depth)

    def stage_key(self, stage: str) -> str:
        """Hash of all fields that the artefacts of `stage` depend on (hex, 16 characters)."""
        wanted = {stage}
        frontier = [stage]
        while frontier:
            for parent in _PARENTS[frontier.pop()]:
                if parent not in wanted:
                    wanted.add(parent)
                    frontier.append(parent)
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.metadata["stage"] in wanted}
        values["released"] = [name for name in self.released if RELEASED_STEPS[name] in wanted]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


_ONLY_WITH: dict[str, tuple[str, tuple[Any, ...]]] = {
    "border_cells": ("border", ("replicate",)),
    "patch": ("setting", ("E", "B", "position")),
    **dict.fromkeys(
        [f.name for f in dataclasses.fields(Neighborhood)],
        ("setting", ("E", "B")),
    ),
    "combine": ("setting", ("E",)),
    "temperature": ("setting", ("E", "B")),
    "gate": ("setting", ("position",)),
    "veto_nats": ("gate", ("soft",)),
    "level_power": ("gate", ("soft",)),
    "baseline": ("setting", ("A",)),
    "baseline_neighbors": ("baseline", ("patchcore",)),
    "released=emb_bins": ("setting", ("E", "position")),
    "released=centre_leak": ("setting", ("E", "B")),
    "released=best_epoch": ("setting", ("E", "B")),
    "released=rank_transfer": ("setting", ("E", "B")),
    "released=first_eighth": ("setting", ("E", "B", "position")),
    "released=dist_threshold": ("setting", ("E", "B", "position")),
}
"""Settings, and steps of the release, that count only where another setting has one of these values."""

_WITHOUT_EFFECT: tuple[tuple[str, dict[str, tuple[Any, ...]]], ...] = (
    ("weights", {"backbone": ("scattering",)}),
    ("aggregation", {"backbone": ("scattering",)}),
    ("dim", {"backbone": ("scattering",), "feature_norm": ("none", "channel")}),
    ("dim", {"aggregation": ("concat",), "feature_norm": ("none", "channel")}),
    ("calibration_fpr", {"calibration_images": (0,)}),
)
"""Settings that do not count while all these others have one of these values."""


def _known(name: str) -> None:
    names = PNIConfig.names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "`pni config` lists them all"
        raise PNIError(f"there is no setting {name!r}: {hint}")
