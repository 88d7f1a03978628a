"""Which settings a fitted model can be looked at with: those that nothing learnt depends on."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from pnilib.config import NEEDS, RELEASED_STEPS, PNIConfig
from pnilib.coreset import Coreset, coreset_size
from pnilib.detector.inference import is_soft
from pnilib.errors import PNIError

if TYPE_CHECKING:
    from pnilib.detector.pni import PNI

__all__ = ["by_ratio", "coreset_of", "lacking_parts", "require_compatible"]

_LATE_STAGES = ("scoring", "maps", "decision", "defects", "refinement", "fusion")
_LATE = {f.name for f in dataclasses.fields(PNIConfig) if f.metadata["stage"] in _LATE_STAGES}
"""Settings on which nothing depends that `fit` learns; `emb_ratio` may be lowered besides, see `coreset_of`."""


def _early(config: PNIConfig) -> dict[str, Any]:
    """What a fitted model cannot be changed in."""
    released = ",".join(name for name in config.released if RELEASED_STEPS[name] not in _LATE_STAGES)
    return {name: getattr(config, name) for name in config.names() if name not in _LATE} | {"released": released}


def require_compatible(model: "PNI", config: PNIConfig) -> None:
    """Raises PNIError for a setting that a fitted part depends on, or that needs what was not fitted."""
    for name, value in _early(config).items():
        fitted = _early(model.config)[name]
        smaller = name == "emb_ratio" and value < fitted and "emb_bins" not in config.released
        if value != fitted and name == "released":
            raise PNIError(
                f"released={value or 'none'}: the model was fitted with {fitted or 'none'} of the steps that a fit "
                f"depends on: name {'these, too' if fitted else 'none of them'}, or fit again"
            )
        if value != fitted and not smaller:
            raise PNIError(f"{name}={value}: the model was fitted with {fitted}: fit again")
    if model.coreset is not None and (lacking := lacking_parts(model, config.setting)):
        raise PNIError(
            f"setting={config.setting}: the model was fitted without the distribution of {' and '.join(lacking)}: "
            f"fit with setting=E, or use {' or '.join(model.settings)}"
        )
    if model.coreset is not None and is_soft(config) and model.veto is None:
        raise PNIError("gate=soft: the model was fitted without its constants: fit with setting=position, gate=soft")
    coreset = coreset_of(model, config)
    averaged = config.baseline_neighbors if config.setting == "A" and config.baseline == "patchcore" else 1
    if coreset is not None and averaged > (size := len(coreset.embedding)):
        raise PNIError(f"baseline_neighbors={averaged}: the coreset has {size} vectors: lower it")


def lacking_parts(model: "PNI", setting: str) -> list[str]:
    """Distributions that a setting looks at and the model does not have."""
    fitted = {"position": model.position, "neighborhood": model.mlp}
    return [name for name in NEEDS[setting] if fitted[name] is None]


def coreset_of(model: "PNI", config: PNIConfig) -> Coreset | None:
    """The coreset of `config`: a beginning of the fitted one where its ratio is smaller."""
    if model.coreset is None or config.emb_ratio == model.config.emb_ratio:
        return model.coreset
    border = config.border_cells if config.border == "replicate" else 0
    cells = math.prod(side - 2 * border for side in model.embedder.grid)
    return model.coreset.first(coreset_size(len(model.train_paths) * cells, config.emb_ratio, config.emb_max))


def by_ratio(variants: dict[str, PNIConfig]) -> list[dict[str, PNIConfig]]:
    """Groups of variants that look at the same coreset, that of one `emb_ratio`."""
    groups: dict[float, dict[str, PNIConfig]] = {}
    for name, config in variants.items():
        groups.setdefault(config.emb_ratio, {})[name] = config
    return list(groups.values())
