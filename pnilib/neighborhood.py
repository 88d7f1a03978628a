r"""Neighborhood distribution p(c_dist | N_p(x)): which coreset entry the neighbors let one expect.

N_p(x) = { Phi_i(m, n) | |m - h| <= p/2, |n - w| <= p/2, (m, n) != (h, w) }                    (7)

"The MLP takes an input of a 1-dimensional vector obtained by concatenating all features in N_p(x) and has N_MLP
sequential layers with c_MLP channels.  Batch normalization and ReLU activation functions are used between
layers."  Target: the index of the C_dist vector closest to the centre; loss: cross-entropy; at
inference the logits are divided by T = 2 (sec. 3.2).  Training: Adam, lr 1e-3, 15 epochs, batch 2,048, decay 0.1
every 5 epochs (sec. 4.1).

Batches are gathered from the feature maps as they are needed; the array of all neighborhoods
(N * cells * (p^2 - 1) * d numbers) never exists.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from pnilib.config import PNIConfig
from pnilib.errors import PNIError
from pnilib.store.artefacts import read_artefact, write_artefact
from pnilib.store.checkpoints import load_optimizer, optimizer_tensors

__all__ = [
    "NeighborhoodMLP",
    "TrainedMLP",
    "gather_neighbors",
    "log_probability",
    "neighbor_offsets",
    "train_neighborhood",
]


def neighbor_offsets(patch: int) -> list[tuple[int, int]]:
    """Offsets (row, column) of the p^2 - 1 neighbors, row-major: all of the window but (0, 0), eq. (7)."""
    reach = patch // 2
    window = [(h, w) for h in range(-reach, reach + 1) for w in range(-reach, reach + 1)]
    return [offset for offset in window if offset != (0, 0)]


def gather_neighbors(
    features: Float32[Tensor, "n gh gw d"],
    cells: Int64[Tensor, " b"],
    offsets: list[tuple[int, int]],
    pad: str = "zero",
) -> Float32[Tensor, "b inputs"]:
    """Concatenated neighborhoods of some cells, (b, (p^2 - 1) d).

    `cells` indexes the flattened (n, gh, gw).  Outside the map: zeros, or with pad=replicate the edge repeated.
    """
    _, gh, gw, d = features.shape
    at_offset = torch.tensor(offsets, device=cells.device)
    row = (cells // gw % gh)[:, None] + at_offset[:, 0]
    column = (cells % gw)[:, None] + at_offset[:, 1]
    inside = (row >= 0) & (row < gh) & (column >= 0) & (column < gw)
    at = (cells // (gh * gw))[:, None] * (gh * gw) + row.clamp(0, gh - 1) * gw + column.clamp(0, gw - 1)
    rows = features.view(-1, d).index_select(0, at.flatten().to(features.device)).view(len(cells), -1, d)
    if pad == "zero":
        rows = rows * inside.to(rows.device)[:, :, None]
    return rows.flatten(1)


class NeighborhoodMLP(nn.Module):
    """N_MLP fully connected layers; between them batch normalization, ReLU (and dropout, if any).

    `offsets`: of the neighbors that it sees, (p^2 - 1) of them; left out: eq. (7)'s.
    """

    def __init__(self, d: int, n_dist: int, config: PNIConfig, offsets: list[tuple[int, int]] | None = None) -> None:
        super().__init__()
        self.config = config
        self.offsets = neighbor_offsets(config.patch) if offsets is None else offsets
        layers: list[nn.Module] = []
        width = (config.patch**2 - 1) * d
        for _ in range(config.mlp_layers - 1):
            layers += [nn.Linear(width, config.mlp_width), nn.BatchNorm1d(config.mlp_width), nn.ReLU()]
            if config.mlp_dropout > 0:
                layers.append(nn.Dropout(config.mlp_dropout))
            width = config.mlp_width
        layers.append(nn.Linear(width, n_dist))
        self.first: nn.Linear = layers[0]  # type: ignore[assignment]
        self.rest: nn.Sequential = nn.Sequential(*layers[1:])

    def forward(self, neighbors: Float[Tensor, "n features"]) -> Float[Tensor, "n n_dist"]:
        """Logits of p(c_dist | N_p(x)) before the temperature."""
        logits: Tensor = self.rest(self.first(neighbors))
        return logits

    def logits_map(self, features: Float[Tensor, "b gh gw d"]) -> Float[Tensor, "b gh gw n_dist"]:
        """Logits at every cell of whole feature maps.

        The first layer is one matrix product a neighbor, added up over the shifted map: no neighborhood is ever
        written out.  Equal to `forward(gather_neighbors(...))` up to rounding.
        """
        b, gh, gw, d = features.shape
        reach = self.config.patch // 2
        mode = "constant" if self.config.nb_pad == "zero" else "replicate"
        padded = F.pad(features.movedim(3, 1), (reach,) * 4, mode=mode).movedim(1, 3)
        weight = self.first.weight.view(-1, len(self.offsets), d)
        hidden = self.first.bias.repeat(b * gh * gw, 1)
        for k, (h, w) in enumerate(self.offsets):
            window = padded[:, h + reach : h + reach + gh, w + reach : w + reach + gw]
            hidden.addmm_(window.reshape(-1, d), weight[:, k].T)
        return self.rest(hidden).view(b, gh, gw, -1)


def log_probability(logits: Float32[Tensor, "*cells n_dist"], temperature: float) -> Float32[Tensor, "*cells n_dist"]:
    """log p(c_dist | N_p(x)), nats: log softmax(logits / T); T = 2 in the paper (sec. 3.2)."""
    return (logits / temperature).log_softmax(-1)


@dataclass(frozen=True)
class TrainedMLP:
    """The network to use, and one row an epoch: epoch, loss (nats), lr, val_loss where patches are held out."""

    mlp: NeighborhoodMLP
    history: list[dict[str, float]]


def train_neighborhood(
    features: Float32[Tensor, "n gh gw d"],
    target_idx: Int64[Tensor, "n gh gw"],
    n_dist: int,
    config: PNIConfig,
    *,
    offsets: list[tuple[int, int]] | None = None,
    held_out: float = 0.0,
    device: str = "cpu",
    checkpoint: Path | None = None,
    after_epoch: Callable[[int, NeighborhoodMLP], None] | None = None,
    progress: bool = False,
) -> TrainedMLP:
    """Fit the MLP: cross-entropy between its output and the nearest C_dist entry of each centre.

    `offsets` as in `NeighborhoodMLP`.  `held_out`: share of the patches, drawn at random, whose loss chooses the epoch
    that is kept; 0 = the last.  `features` may stay on the CPU (or in a memory-mapped file) while the network is on
    `device`. `checkpoint`: a folder rewritten after each epoch; the same call resumes from it and ends in the same
    bytes. `after_epoch` is called with the number of epochs done and the network, in evaluation mode.
    Raises PNIError when the loss stops being finite; the last epoch's checkpoint is kept.
    """
    n, gh, gw, d = features.shape
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        mlp = NeighborhoodMLP(d, n_dist, config, offsets).to(device)
    adam = torch.optim.Adam(mlp.parameters(), lr=config.mlp_lr)
    cells = torch.arange(n * gh * gw).view(n, gh, gw)
    if config.border == "replicate":
        b = config.border_cells
        cells = cells[:, b:-b, b:-b]
    cells = cells.flatten()[torch.randperm(cells.numel(), generator=_generator(config, -1))]
    n_val = int(held_out * len(cells))
    unseen, cells = cells[:n_val], cells[n_val:].sort().values
    if len(cells) < 2:
        raise PNIError("the neighborhood MLP needs at least 2 training patches: add images")
    target = target_idx.flatten()
    history: list[dict[str, float]] = []
    best: dict[str, Tensor] = {}  # where patches are held out
    if checkpoint is not None and checkpoint.exists():
        history, best = _load_checkpoint(checkpoint, mlp, adam)

    def loss_of(batch: Tensor) -> Tensor:
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=config.precision == "bf16"):
            logits = mlp(gather_neighbors(features, batch, mlp.offsets, config.nb_pad).to(device))
        return F.cross_entropy(logits.float(), target[batch].to(device))

    steps = [len(part) > 1 for part in cells.split(config.mlp_batch)].count(True)
    bar = tqdm(total=steps * config.mlp_epochs, initial=steps * len(history), desc="neighborhood MLP",
               unit="step", disable=not progress)  # fmt: skip
    for epoch in range(len(history), config.mlp_epochs):
        lr = config.mlp_lr * config.mlp_lr_gamma ** (epoch // config.mlp_lr_step)
        for group in adam.param_groups:
            group["lr"] = lr
        mlp.train()
        total, seen = 0.0, 0
        generator = _generator(config, epoch)
        with torch.random.fork_rng():  # dropout
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
            for batch in cells[torch.randperm(len(cells), generator=generator)].split(config.mlp_batch):
                if len(batch) < 2:  # batch normalization has no variance of one patch
                    continue
                loss = loss_of(batch)
                adam.zero_grad(set_to_none=True)
                loss.backward()
                adam.step()
                total, seen = total + float(loss.detach()) * len(batch), seen + len(batch)
                bar.update()
                bar.set_postfix(epoch=epoch + 1, loss=f"{total / seen:.3f}", lr=f"{lr:.0e}")
        row = {"epoch": epoch + 1, "loss": total / seen, "lr": lr}
        if not math.isfinite(row["loss"]):
            raise PNIError(f"the neighborhood MLP's loss is {row['loss']} in epoch {epoch + 1}: lower mlp_lr")
        mlp.eval()
        if n_val:
            with torch.no_grad():
                losses = [float(loss_of(part)) * len(part) for part in unseen.split(config.mlp_batch)]
            row["val_loss"] = sum(losses) / n_val
        history.append(row)
        if n_val and row["val_loss"] <= min(past["val_loss"] for past in history):
            best = {name: value.clone() for name, value in mlp.state_dict().items()}
        if checkpoint is not None:
            _save_checkpoint(checkpoint, mlp, adam, history, best)
        if after_epoch is not None:
            after_epoch(epoch + 1, mlp)
    bar.close()
    if best:
        mlp.load_state_dict(best)
    return TrainedMLP(mlp.eval(), history)


def _generator(config: PNIConfig, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(config.seed * 10_007 + epoch + 1)


def _save_checkpoint(
    folder: Path,
    mlp: NeighborhoodMLP,
    adam: torch.optim.Adam,
    history: list[dict[str, float]],
    best: dict[str, Tensor],
) -> None:
    kept = {"mlp": mlp.state_dict(), "adam": optimizer_tensors(adam)} | ({"best": best} if best else {})
    write_artefact(folder, kept, {"history": history})


def _load_checkpoint(
    folder: Path, mlp: NeighborhoodMLP, adam: torch.optim.Adam
) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    tensors, meta = read_artefact(folder)
    mlp.load_state_dict(tensors["mlp"])
    load_optimizer(adam, tensors["adam"])
    return meta["history"], tensors.get("best", {})
