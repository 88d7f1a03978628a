"""What is wrong with a data set, in words."""

from dataclasses import dataclass

__all__ = ["Finding"]


@dataclass(frozen=True)
class Finding:
    """One defect: its kind, where it is, what is wrong, what to do."""

    kind: str
    path: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}: {self.remedy}"

    @property
    def note(self) -> str:
        """Without the place, for lines that name it anyway."""
        return f"{self.problem}: {self.remedy}"
