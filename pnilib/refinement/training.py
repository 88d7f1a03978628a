"""Training of the refinement network: "the Adam optimizer for 55,000 iterations with a 10^-4 learning rate and batch
size 8" (PNI sec. 4.1).

One loop for one category or for all (B38): a batch draws its images from the pools put one after another, each epoch in
a new order.  Batch i and its augmentation depend on the seed and on i alone, so that a resumed training ends in the
same bytes.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from pnilib.config import PNIConfig
from pnilib.errors import PNIError
from pnilib.refinement.augmentation import COLOUR_CHANGES, augment
from pnilib.refinement.losses import refinement_loss
from pnilib.refinement.network import STRIDE, RefineNet, build_network, standardise
from pnilib.refinement.pool import Pool
from pnilib.store.artefacts import read_artefact, write_artefact
from pnilib.store.checkpoints import load_optimizer, optimizer_tensors

__all__ = ["CHECKPOINT_EVERY", "LOG_EVERY", "TrainedNetwork", "train_network"]

CHECKPOINT_EVERY = 500
LOG_EVERY = 50
"""Iterations between checkpoints; and between rows of the history."""

_NEVER = 2**62


@dataclass(frozen=True)
class TrainedNetwork:
    """The network in evaluation mode, and one row every LOG_EVERY iterations: iteration, loss (mean since the last)."""

    network: RefineNet
    history: list[dict[str, float]]


def train_network(
    pools: Sequence[Pool],
    config: PNIConfig,
    *,
    kind: type[RefineNet] = RefineNet,
    changes: tuple[str, ...] = COLOUR_CHANGES,
    device: str = "cpu",
    checkpoint: Path | None = None,
    progress: bool = False,
) -> TrainedNetwork:
    """Minimise eq. (9) over the pools.

    `kind`: of network; `changes`: of colour, see `augment`.  `checkpoint`: a folder rewritten every CHECKPOINT_EVERY
    iterations; the same call resumes from it. Raises PNIError when the loss stops being finite, naming the iteration;
    the last checkpoint, whose weights are all finite, is kept.  Raises PNIError too when a batch would be one image of
    one cell, and what `build_network` raises.
    """
    n = sum(pool.n for pool in pools)
    size = min(config.refine_batch, n)
    if size == 1 and min(config.refine_crop or config.image_crop, config.image_crop) <= STRIDE:
        raise PNIError(f"refine_batch=1: batch normalization needs larger batches, or crops over {STRIDE} px")
    network = build_network(config, device, kind).to(memory_format=torch.channels_last).train()
    adam = torch.optim.Adam(network.parameters(), lr=config.refine_lr)
    history: list[dict[str, float]] = []
    done = 0
    if checkpoint is not None and checkpoint.exists():
        done, history = _load(checkpoint, network, adam)
    orders: dict[int, Tensor] = {}

    def draw(iteration: int) -> tuple[Tensor, Tensor, Tensor]:
        epoch, step = divmod(iteration, n // size)
        if epoch not in orders:
            orders.clear()
            orders[epoch] = torch.randperm(n, generator=_generator(config, -1 - epoch))
        images, maps, masks = _gather(pools, orders[epoch][step * size : (step + 1) * size].tolist())
        return images.to(device), maps.to(device), masks.to(device)

    place = torch.device(device).type
    bar = tqdm(total=config.refine_iterations, initial=done, desc="refinement network", unit="it", disable=not progress)
    total, first_bad = torch.zeros((), device=device), torch.tensor(_NEVER, device=device)  # read now and then
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(draw, done)
        for iteration in range(done, config.refine_iterations):
            batch = coming.result()
            if iteration + 1 < config.refine_iterations:
                coming = reader.submit(draw, iteration + 1)
            images, maps, truth = augment(*batch, config, _generator(config, iteration), changes)
            with torch.autocast(place, torch.bfloat16, enabled=config.refine_precision == "bf16"):
                out = network(standardise(images).to(memory_format=torch.channels_last), maps)
            loss = refinement_loss(out.float(), truth, config)
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
            total += loss.detach()
            first_bad = torch.where(loss.detach().isfinite(), first_bad, first_bad.clamp(max=iteration))
            bar.update()
            logs, keeps = (iteration + 1) % LOG_EVERY == 0, (iteration + 1) % CHECKPOINT_EVERY == 0
            last = iteration + 1 == config.refine_iterations
            if not (logs or keeps or last):
                continue
            _require_finite(first_bad, network, iteration, checkpoint)
            if logs:
                history.append({"iteration": iteration + 1, "loss": float(total) / LOG_EVERY})
                bar.set_postfix(loss=f"{history[-1]['loss']:.2e}")
                total.zero_()
            if checkpoint is not None and (keeps or last):
                _save(checkpoint, network, adam, iteration + 1, history)
    bar.close()
    return TrainedNetwork(network.eval(), history)


def _gather(pools: Sequence[Pool], chosen: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """A batch in the given order, its indices counted through all pools."""
    parts = []
    for k in chosen:
        for pool in pools:
            if k < pool.n:
                parts.append(pool.batch([k]))
                break
            k -= pool.n
    images, maps, masks = zip(*parts, strict=True)
    return torch.cat(images), torch.cat(maps), torch.cat(masks)


def _generator(config: PNIConfig, iteration: int) -> torch.Generator:
    return torch.Generator().manual_seed(config.seed * 100_000_007 + 50_000_000 + iteration)


def _require_finite(first_bad: Tensor, network: RefineNet, iteration: int, checkpoint: Path | None) -> None:
    at = int(first_bad)
    if at == _NEVER and all(bool(torch.isfinite(value).all()) for value in network.state_dict().values()):
        return
    fault = f"loss is not finite at iteration {at + 1}"
    if at == _NEVER:
        fault = f"weights are not finite at iteration {iteration + 1}"
    kept = "" if checkpoint is None or not checkpoint.exists() else f"; the last good state is kept in {checkpoint}"
    raise PNIError(f"the refinement's {fault}: lower refine_lr{kept}")


def _save(folder: Path, network: RefineNet, adam: torch.optim.Adam, done: int, history: list[dict[str, float]]) -> None:
    kept = {"network": network.state_dict(), "adam": optimizer_tensors(adam)}
    write_artefact(folder, kept, {"key": network.config.stage_key("refinement"), "done": done, "history": history})


def _load(folder: Path, network: RefineNet, adam: torch.optim.Adam) -> tuple[int, list[dict[str, float]]]:
    tensors, meta = read_artefact(folder)
    if meta.get("key") != network.config.stage_key("refinement"):
        raise PNIError(f"{folder}: is the checkpoint of other settings: delete it, or give another folder")
    network.load_state_dict(tensors["network"])
    load_optimizer(adam, tensors["adam"])
    return meta["done"], meta["history"]
