"""An optimizer's state as named tensors, so that a checkpoint is an ordinary artefact: no pickle."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["load_optimizer", "optimizer_tensors"]


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What the optimizer remembers of each parameter: "PARAMETER.NAME" -> tensor."""
    return {
        f"{i}.{name}": torch.as_tensor(value)
        for i, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Inverse of `optimizer_tensors`, for an optimizer over the same parameters."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        i, key = name.split(".")
        state.setdefault(int(i), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
