"""Training of NSA's network: Adam, its learning rate falling along half a cosine, BCE or MSE (PAPER_AUDIT section D).

The order of an epoch and its samples depend on the seed and the epoch alone, so that a resumed training ends in the
same bytes.  A checkpoint is written at the end of an epoch, CHECKPOINT_SECONDS after the last one at the earliest.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from pnilib.errors import PNIError
from pnilib.nsa.config import NSAConfig
from pnilib.nsa.network import NSANet
from pnilib.nsa.samples import Samples
from pnilib.store.artefacts import read_artefact, write_artefact
from pnilib.store.checkpoints import load_optimizer, optimizer_tensors
from pnilib.store.version import pnilib_version
from pnilib.synthesis.nsa_tasks import ClassRules

__all__ = ["CHECKPOINT_SECONDS", "Trained", "learning_rate", "network_input", "predicted", "train_network"]

CHECKPOINT_SECONDS = 60.0
ENOUGH = 50
"""Samples without a single changed pixel after which a training is given up."""

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Trained:
    """The network in evaluation mode; one row an epoch: epoch, loss (mean), lost (patches without a place)."""

    network: NSANet
    history: list[dict[str, float]]


def learning_rate(config: NSAConfig, epoch: int, n_epochs: int) -> float:
    """last + (first - last) (1 + cos(pi epoch / n)) / 2."""
    share = (1 + math.cos(math.pi * epoch / n_epochs)) / 2
    return config.last_lr + (config.lr - config.last_lr) * share


def network_input(images: Tensor) -> Tensor:
    """(b, 3, h, w) in 8 bits -> as the network takes them: [0, 1], less ImageNet's mean, over its deviation."""
    mean, std = (torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in (_MEAN, _STD))
    return ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def predicted(logits: Tensor, loss: str) -> Tensor:
    """Logits -> label: their sigmoid, or their positive part where the loss is `mse`."""
    return logits.relu() if loss == "mse" else logits.sigmoid()


def train_network(
    images: list[ndarray],
    config: NSAConfig,
    rules: ClassRules,
    n_epochs: int,
    *,
    device: str = "cpu",
    workers: int = 0,
    checkpoint: Path | None = None,
    after_epoch: Callable[[int, NSANet, list[dict[str, float]]], None] | None = None,
    progress: bool = False,
) -> Trained:
    """Minimise the task's loss over `n_epochs` passes.

    workers: processes that make samples; 0, this one.  checkpoint: a folder to resume from, and to rewrite.
    after_epoch: called with epochs done, network and history, for pictures.  Raises PNIError when the loss stops being
    finite, when no patch changes anything, and for a checkpoint of other settings or images.
    """
    task = config.patch_task
    torch.manual_seed(config.seed)
    network = NSANet().to(device).to(memory_format=torch.channels_last).train()
    adam = torch.optim.Adam(network.parameters(), lr=config.lr)
    key = _key(images, config, rules, n_epochs)
    done: int = 0
    history: list[dict[str, float]] = []
    if checkpoint is not None and checkpoint.exists():
        done, history = _load(checkpoint, key, network, adam)
    saved = time.monotonic()
    n_seen = n_changed = 0
    bar = tqdm(total=n_epochs, initial=done, desc=f"NSA: {config.task}", unit="epoch", disable=not progress)
    for epoch in range(done, n_epochs):
        for group in adam.param_groups:
            group["lr"] = learning_rate(config, epoch, n_epochs)
        total, lost, n = torch.zeros((), device=device), 0, 0
        for pixels, labels, missing in _batches(Samples(images, config, rules, epoch), workers):
            labels = labels.to(device)
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=config.precision == "bf16"):
                logits = network(network_input(pixels.to(device)))
            logits = logits.float()
            if task.loss == "mse":
                loss = functional.mse_loss(predicted(logits, "mse"), labels)
            else:
                loss = functional.binary_cross_entropy_with_logits(logits, labels)
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
            n_seen, n_changed = n_seen + len(pixels), n_changed + int(labels.flatten(1).any(dim=1).sum())
            total += loss.detach() * len(pixels)
            lost, n = lost + int(missing.sum()), n + len(pixels)
        if n_seen >= ENOUGH and not n_changed:
            raise PNIError(
                f"no patch changed any of the first {n_seen} samples: the images are uniform, or the rules of their "
                "class call all of them background: name others with --rules, as mvtec/carpet"
            )
        mean = float(total) / n
        if not math.isfinite(mean):
            kept = f"; epoch {done} is kept in {checkpoint}" if checkpoint is not None and checkpoint.exists() else ""
            raise PNIError(f"the loss is not finite in epoch {epoch + 1}: lower the learning rate{kept}")
        history.append({"epoch": epoch + 1, "loss": mean, "lost": lost})
        bar.set_postfix(loss=f"{mean:.4g}", refresh=False)
        bar.update()
        last = epoch + 1 == n_epochs
        if checkpoint is not None and (last or time.monotonic() - saved >= CHECKPOINT_SECONDS):
            _save(checkpoint, key, network, adam, history)
            done, saved = epoch + 1, time.monotonic()
        if after_epoch is not None:
            after_epoch(epoch + 1, network, history)
    bar.close()
    return Trained(network.eval(), history)


def _batches(samples: Samples, workers: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The epoch's samples in its own order."""
    config, n = samples.config, len(samples)
    order = np.random.default_rng((config.seed, samples.epoch)).permutation(n).tolist()
    batches = [order[k : k + config.batch] for k in range(0, n, config.batch)]
    if len(batches) > 1 and len(batches[-1]) == 1:  # batch normalization wants more than one image
        alone = batches.pop()
        batches[-1] += alone
    yield from DataLoader(samples, batch_sampler=batches, num_workers=workers)


def _key(images: list[ndarray], config: NSAConfig, rules: ClassRules, n_epochs: int) -> str:
    """What a checkpoint depends on: settings of the training, rules, version, pixels."""
    digest = hashlib.sha256(
        json.dumps([config.replace(image_score="mean").to_dict(), repr(rules), n_epochs, pnilib_version()]).encode()
    )
    for image in images:
        digest.update(image.tobytes())
    return digest.hexdigest()


def _save(folder: Path, key: str, network: NSANet, adam: torch.optim.Adam, history: list[dict[str, float]]) -> None:
    kept = {"network": network.state_dict(), "adam": optimizer_tensors(adam)}
    write_artefact(folder, kept, {"key": key, "history": history})


def _load(folder: Path, key: str, network: NSANet, adam: torch.optim.Adam) -> tuple[int, list[dict[str, float]]]:
    tensors, meta = read_artefact(folder)
    if meta.get("key") != key:
        raise PNIError(
            f"{folder}: is the checkpoint of other settings or images: delete it, or choose another output folder"
        )
    network.load_state_dict(tensors["network"])
    load_optimizer(adam, tensors["adam"])
    return len(meta["history"]), meta["history"]
