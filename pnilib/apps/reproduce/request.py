"""What a reproduction is asked for: which data in which of the paper's roles, which profile, which seeds."""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from pnilib.apps.reproduce.settings import MEMBERS, PAPER_DATA, SPECIAL
from pnilib.config import PNIConfig
from pnilib.data import Dataset, list_categories, load_dataset
from pnilib.errors import PNIError
from pnilib.published import PAPER_COUNTS

__all__ = ["ROLES", "Request", "Source", "fingerprint", "paper_sources", "sources_of"]

ROLES = tuple(PAPER_DATA)
"""The paper's data sets; another data set stands in for those that are not given."""


@dataclass(frozen=True)
class Source:
    """One category of a data set, by name, so that any process can open it."""

    dataset: str
    root: str
    category: str
    options: tuple[tuple[str, Any], ...] = ()

    def load(self) -> Dataset:
        return load_dataset(self.dataset, self.root, self.category, **dict(self.options))


@lru_cache(maxsize=256)  # listed once a plan: `build_plan` forgets
def fingerprint(source: Source) -> str:
    """SHA-256 over training and test images, masks and labels."""
    if not source.root:  # data that are not at hand can be planned for, no more
        return f"{source.dataset}/{source.category}"
    data = source.load()
    return hashlib.sha256(f"{data.train.fingerprint()} {data.test.fingerprint()}".encode()).hexdigest()


@dataclass(frozen=True)
class Request:
    """What the user asks for.  sources: role -> categories; roles without a data set of their own hold the stand-in's.
    seeds: of the detectors and of PNI; network_seeds, some of them: of the other settings with a network, and of the
    ensembles."""

    profile: str
    sources: dict[str, tuple[Source, ...]]
    seeds: tuple[int, ...] = (0, 1, 2)
    network_seeds: tuple[int, ...] = (0,)
    overrides: dict[str, Any] = field(default_factory=dict)

    @property
    def base(self) -> PNIConfig:
        values = SPECIAL.get(self.profile, {}) | self.overrides
        return PNIConfig.profile(self.profile).replace(**values)

    @property
    def main(self) -> tuple[Source, ...]:
        """The categories in MVTec AD's place, or else the first that there are."""
        return next(found for role in ROLES if (found := self.sources[role]))

    @property
    def members(self) -> dict[str, dict[str, Any]]:
        return MEMBERS[self.profile]

    def config(self, member: str, seed: int) -> PNIConfig:
        """Of one backbone, behind hard gates.  What the user overrides wins over the member, but for the backbone."""
        own = self.members[member]
        overrides = {name: value for name, value in self.overrides.items() if name != "backbone"}
        return self.base.replace(**(own | overrides), seed=seed, setting="E", gate="hard")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Request":
        """Inverse of `to_dict`.  Raises PNIError for values of another form."""
        try:
            sources = {
                role: tuple(Source(**(one | {"options": tuple(map(tuple, one["options"]))})) for one in found)
                for role, found in values["sources"].items()
            }
            return cls(
                values["profile"], sources, tuple(values["seeds"]), tuple(values["network_seeds"]), values["overrides"]
            )
        except (KeyError, TypeError, AttributeError):
            raise PNIError("request: is damaged or of another version: run `pni reproduce` again") from None

    def stands_in(self, role: str) -> bool:
        """Whether another data set plays this part; also True without any data."""
        return not self.sources[role] or any(source.dataset != role for source in self.sources[role])


def sources_of(dataset: str, root: Path | str, categories: Sequence[str] | None = None, **options: Any) -> list[Source]:
    """The categories of a data set.  Raises PNIError for an unknown or empty one."""
    found = list(categories) if categories else list_categories(dataset, root)
    place = str(Path(root).resolve())
    return [Source(dataset, place, name, tuple(sorted(options.items()))) for name in found]


def paper_sources() -> dict[str, tuple[Source, ...]]:
    """The paper's data sets by role, without files: enough to plan and to estimate."""
    return {role: tuple(Source(role, "", name) for name in found) for role, found in PAPER_COUNTS.items()}
