"""Settings of a run as a whole: its seed, and which steps are the release's."""

from collections.abc import Sequence
from dataclasses import dataclass

from pnilib.config.fields import param
from pnilib.errors import PNIError

__all__ = ["RELEASED_STEPS", "Run", "released_names"]

RELEASED_STEPS = {
    "sparse_projection": "coreset",
    "start_dropped": "coreset",
    "emb_bins": "position",
    "centre_leak": "neighborhood",
    "best_epoch": "neighborhood",
    "rank_transfer": "scoring",
    "first_eighth": "scoring",
    "dist_threshold": "scoring",
    "density": "scoring",
    "reweighted": "decision",
    "three_map_channels": "refinement",
    "mean_of_stems": "refinement",
    "residual": "refinement",
    "three_brightnesses": "refinement",
    "misaligned": "fusion",
}
"""Steps of the paper that the authors' code replaces by others -> the stage that each belongs to; `pnilib.released`
has them and says what they do."""


def released_names(value: str | Sequence[str]) -> tuple[str, ...]:
    """Names in pipeline order, of one text with commas or of several.  Raises PNIError for one that does not exist."""
    if not isinstance(value, str | list | tuple):
        raise PNIError(f'released={value!r}: give names of steps, or "" for none: {", ".join(RELEASED_STEPS)}')
    given = value.split(",") if isinstance(value, str) else value
    names = [str(name).strip() for name in given if str(name).strip()]
    for name in names:
        if name not in RELEASED_STEPS:
            raise PNIError(f"released={name}: there is no such step of the release: {', '.join(RELEASED_STEPS)}")
    return tuple(name for name in RELEASED_STEPS if name in names)


@dataclass(frozen=True)
class Run:
    """What holds for all of it."""

    seed: int = param(0, "of every random choice", "coreset", "one, as released (B29)", low=0, high=2**31 - 1)
    released: str | Sequence[str] = param(  # a tuple of names once it is made
        (),
        "steps as the authors' code has them, one or several of: " + ", ".join(RELEASED_STEPS),
        "of each step",
        "docs/PAPER_VS_RELEASED.md",
    )
