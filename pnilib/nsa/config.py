"""Settings of an NSA run: one frozen, validated description."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from pnilib.config.fields import param, validated
from pnilib.config.geometry import Geometry
from pnilib.errors import PNIError
from pnilib.synthesis.nsa_tasks import CLASSES, RELEASED, TASKS, VARIANTS, ClassRules, PatchTask

__all__ = ["ALL_TASKS", "STRIDE", "NSAConfig"]

ALL_TASKS: dict[str, PatchTask] = TASKS | {f"nsa-logistic-{name}": task for name, task in VARIANTS.items()}
"""By name: Table 5's six, and Table 7's variants of the last."""

STRIDE = 32
"""px; the encoder halves a side five times."""

_LONG = ("mvtec/hazelnut", "mvtec/metal_nut", "mvtec/screw")
"""Classes that the authors train for 560 epochs instead of 320."""


@dataclass(frozen=True)
class NSAConfig:
    """A run of NSA; the defaults are the published ones (PAPER_AUDIT section D: supplement and released code).

    Raises PNIError for a value that is not allowed.
    """

    task: str = param(
        "nsa-logistic", "what the network learns to find", "training", "Table 5, 7", choices=tuple(ALL_TASKS)
    )
    rules: str = param("auto", "row of Table 4, or `auto`: that of the category, else measured", "training", "Table 4")
    released: bool = param(
        False, "the released code's patch sizes and mask bookkeeping: " + ", ".join(RELEASED), "training", "release"
    )
    size: int = param(256, "px; side of the square image", "training", "release", low=64, high=4096)
    epochs: int = param(
        0, "passes over the training images; 0: 320, or 560 for hazelnut, metal_nut and screw", "training", "release",
        low=0, high=1_000_000,
    )  # fmt: skip
    batch: int = param(64, "images a step", "training", "release", low=1, high=4096)
    lr: float = param(1e-3, "learning rate of Adam at the start", "training", "release", low=1e-9, high=1.0)
    last_lr: float = param(1e-6, "learning rate at the end of the cosine", "training", "release", low=0.0, high=1.0)
    precision: str = param(
        "fp32", "of the network's training: bf16 takes half the memory", "training", "ours", choices=("fp32", "bf16")
    )
    seed: int = param(0, "of every random choice", "training", "ours", low=0, high=2**31 - 1)
    image_score: str = param("mean", "of the map: mean or max", "scoring", "release", choices=("mean", "max"))

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.type is bool:
                if not isinstance(getattr(self, field.name), bool):
                    raise PNIError(f"{field.name}={getattr(self, field.name)!r}: give true or false")
                continue
            object.__setattr__(self, field.name, validated(field, getattr(self, field.name)))
        if self.size % STRIDE:
            raise PNIError(f"size={self.size}: must be a multiple of {STRIDE}: choose {self.size // STRIDE * STRIDE}")
        if self.rules != "auto" and self.rules not in CLASSES:
            raise PNIError(f"rules={self.rules}: unknown: choose auto or one of {', '.join(CLASSES)}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)

    def replace(self, **changes: Any) -> "NSAConfig":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    @property
    def patch_task(self) -> PatchTask:
        """The task, with the release's switches where `released`."""
        task = ALL_TASKS[self.task]
        return dataclasses.replace(task, released=RELEASED) if self.released else task

    @property
    def geometry(self) -> Geometry:
        """Images and masks are resized to `size` x `size`, nothing is cropped."""
        return Geometry(self.size, self.size)

    def n_epochs(self, rules_name: str) -> int:
        """`epochs`, or the published number of the class whose rules are used."""
        return self.epochs or (560 if rules_name in _LONG else 320)

    def crop(self, rules: ClassRules) -> int:
        """px; side of what the network sees of an image: all of a texture, the middle of an object (224 of 256)."""
        return self.size if rules.texture else self.size * 7 // 8 // STRIDE * STRIDE
