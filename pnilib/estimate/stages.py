"""What is said about a run: one row a stage, with its seconds, memory and disk."""

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from pnilib.config import PNIConfig
from pnilib.errors import PNIError

__all__ = ["Estimate", "Free", "Stage", "bytes_text", "seconds_text", "span_text"]


@dataclass(frozen=True)
class Free:
    """What is free now, bytes: memory of the device, and disk below a folder, which need not exist yet."""

    memory: int
    disk: int
    folder: Path

    @classmethod
    def now(cls, device: str, folder: Path | str) -> "Free":
        """Raises PNIError where the file system does not answer."""
        folder = Path(folder)
        try:
            there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
            return cls(_available(device), shutil.disk_usage(there).free, folder)
        except (OSError, StopIteration):
            raise PNIError(f"{folder}: its file system does not say what is free: choose another folder") from None

    def against(self, memory: int, disk: int) -> str:
        """What is needed beside what is free, as one line."""
        return (
            f"memory: {bytes_text(memory)} needed, {bytes_text(self.memory)} free; disk: {bytes_text(disk)} needed, "
            f"{bytes_text(self.disk)} free in {self.folder}"
        )


@dataclass(frozen=True)
class Stage:
    """seconds (NaN when not measured); memory: bytes in use at its peak, beyond the libraries; disk: bytes written."""

    name: str
    seconds: float
    memory: int
    disk: int


@dataclass(frozen=True)
class Estimate:
    """One row a stage.  `features_in_memory`: bytes of the training features, 0 with a work folder."""

    config: PNIConfig
    device: str
    stages: list[Stage]
    features_in_memory: int

    @property
    def seconds(self) -> float:
        """Of all stages."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def memory(self) -> int:
        """Bytes, of the most demanding stage."""
        return max(stage.memory for stage in self.stages)

    @property
    def disk(self) -> int:
        """Bytes, of all stages."""
        return sum(stage.disk for stage in self.stages)

    def require_memory(self, available: int | None = None) -> "Estimate":
        """This estimate.  Raises PNIError, with what would help, when a stage needs more than is available.

        `available`: bytes; by default what the device has free now.
        """
        if lacking := self._lacking_memory(_available(self.device) if available is None else available):
            raise PNIError(lacking)
        return self

    def require(self, free: Free) -> "Estimate":
        """This estimate.  Raises PNIError, with what would help, when memory or disk will not suffice, or both."""
        lacking = [self._lacking_memory(free.memory)]
        if self.disk > free.disk:
            lacking.append(
                f"disk: {bytes_text(self.disk)} are needed, {bytes_text(free.disk)} are free in {free.folder}: make "
                "room, give --out on another disk, or lower image_crop or dim"
            )
        if any(lacking):
            raise PNIError("; ".join(filter(None, lacking)))
        return self

    def _lacking_memory(self, available: int) -> str:
        """One line, empty when it suffices."""
        worst = max(self.stages, key=lambda stage: stage.memory)
        if worst.memory <= available:
            return ""
        return (
            f"{worst.name}: needs {bytes_text(worst.memory)} of memory, {bytes_text(available)} are free: "
            f"{_advice(self, worst)}"
        )

    def format(self) -> str:
        """A small table as text."""
        rows = [("stage", "seconds", "memory", "disk")]
        rows += [(s.name, seconds_text(s.seconds), bytes_text(s.memory), bytes_text(s.disk)) for s in self.stages]
        rows.append(("all", seconds_text(self.seconds), bytes_text(self.memory), bytes_text(self.disk)))
        width = max(13, *(len(name) + 1 for name, *_ in rows))
        return "\n".join(f"{name:<{width}}{seconds:>11}{memory:>11}{disk:>11}" for name, seconds, memory, disk in rows)


def _available(device: str) -> int:
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def _advice(found: Estimate, worst: Stage) -> str:
    ways = {
        "features": "lower image_crop",
        "coreset": "lower emb_ratio or image_crop",
        "position": "lower image_crop, emb_ratio or dist_size",
        "neighborhood": "lower mlp_batch or mlp_width, or use setting=A",
        "calibration": "lower emb_ratio or calibration_images, or use setting=A",
        "scoring": "lower emb_ratio, score fewer images at a time, or use setting=A",
        "maps": "lower image_crop, or score fewer images at a time",
        "folds": "lower mlp_batch or mlp_width, or set pool_maps=leave_out",
        "pool": "lower emb_ratio, or set pool_maps=leave_out",
        "refinement": "lower refine_batch, or set refine_crop",
        "refined calibration": "lower image_crop, or set calibration_images=0",
        "refined scoring": "lower image_crop, or score fewer images at a time",
    }
    if found.features_in_memory > worst.memory / 2:
        return "use a work folder (workdir), which keeps the features on disk, or lower image_crop"
    return ways[worst.name]


def bytes_text(n_bytes: float) -> str:
    """ "3.1 GB"."""
    for unit in ("B", "kB", "MB"):
        if n_bytes < 999.5:
            return f"{n_bytes:.0f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} GB"


def seconds_text(value: float) -> str:
    """Seconds without a unit; - where they were not measured."""
    return "-" if math.isnan(value) else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def span_text(seconds: float) -> str:
    """A time with its unit: "12 s", "3.4 min", "5.6 h", "7.8 d"."""
    if math.isnan(seconds):
        return "-"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
