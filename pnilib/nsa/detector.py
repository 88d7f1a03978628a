"""NSA as an estimator: fit on normal images, predict anomaly maps, save, load.

The map is what the network draws; the image score its mean ("mean of the prediction map (224 area for objects)",
PAPER_AUDIT section D).  Objects are seen through the centre crop they were trained on, and the map is zero around it.
"""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from numpy import ndarray
from tqdm.auto import tqdm

from pnilib.data import Split
from pnilib.data.inputs import as_images
from pnilib.errors import PNIError
from pnilib.machine import deterministic_method
from pnilib.nsa.config import NSAConfig
from pnilib.nsa.network import NSANet
from pnilib.nsa.samples import load_images
from pnilib.nsa.training import network_input, predicted, train_network
from pnilib.store.artefacts import read_artefact, write_artefact
from pnilib.synthesis.nsa_tasks import CLASSES, ClassRules, class_rules, measured_rules

__all__ = ["NSA", "NSAPrediction", "rules_of"]

_KIND = "pnilib.NSA"
_MEASURED = 15
"""Images that rules are measured on."""


@dataclass(frozen=True)
class NSAPrediction:
    """Scores of n images; higher = more anomalous.

    maps: (n, h, w), in [0, 1], or grey levels for continuous labels.  image_scores: (n,).  threshold: NaN, as the
    network has seen every normal image there is; threshold_note says so.
    """

    config: NSAConfig
    image_paths: list[str]
    maps: Float32[ndarray, "n h w"]
    image_scores: Float32[ndarray, " n"]
    threshold: float = math.nan
    threshold_note: str = "no normal-only threshold: NSA's network has learnt from every training image"
    refined: bool = False

    @property
    def name(self) -> str:
        """Short, for pictures."""
        return self.config.task.replace("nsa", "NSA")


def rules_of(config: NSAConfig, train: Split, dataset: str = "", category: str = "") -> tuple[str, ClassRules]:
    """(name, rules): those that `config.rules` names, the category's own, or `measured` ones."""
    if config.rules != "auto":
        return config.rules, CLASSES[config.rules]
    if found := class_rules(dataset, category):
        return f"{dataset}/{category}", found
    geometry = config.geometry
    chosen = np.unique(np.linspace(0, len(train) - 1, _MEASURED).round().astype(int))
    return "measured", measured_rules([train.image(int(i), geometry).permute(1, 2, 0).numpy() for i in chosen])


class NSA:
    """Natural synthetic anomalies.

    >>> model = NSA(NSAConfig(epochs=20)).fit(dataset.train, dataset.name, dataset.category)
    >>> prediction = model.predict(dataset.test)

    After `fit` or `load`: rules_name and rules; history, one row an epoch; `train_fingerprint` as in PNI.
    """

    def __init__(self, config: NSAConfig | None = None, device: str = "cpu") -> None:
        self.config = NSAConfig() if config is None else config
        self.device = device
        self.network: NSANet | None = None
        self.rules_name, self.rules = "", ClassRules()
        self.history: list[dict[str, float]] = []
        self.seconds = 0.0
        self.train_fingerprint = ""
        self.train_paths: list[str] = []

    @deterministic_method
    def fit(
        self,
        train: Split,
        dataset: str = "",
        category: str = "",
        *,
        workers: int = 0,
        checkpoint: Path | None = None,
        after_epoch: Callable[[int, "NSA", list[ndarray]], None] | None = None,
        progress: bool = False,
    ) -> "NSA":
        """Learn from normal images; `dataset` and `category` choose the rules where the configuration does not.

        workers, checkpoint: as in `train_network`; a killed fit resumes with the same call.  after_epoch: called with
        epochs done, this model as it is by then, and the training images.  Raises PNIError for no images.
        """
        if len(train) == 0:
            raise PNIError("there are no training images: check the data set's train folder")
        began = time.monotonic()
        self.train_fingerprint = train.fingerprint()
        self.train_paths = [str(path) for path in train.samples["image_path"]]
        self.rules_name, self.rules = rules_of(self.config, train, dataset, category)
        images: list[ndarray] = load_images(train, self.config, self.rules)

        def report(epoch: int, network: NSANet, history: list[dict[str, float]]) -> None:
            self.network, self.history = network, history
            if after_epoch is not None:
                after_epoch(epoch, self, images)

        trained = train_network(
            images, self.config, self.rules, self.config.n_epochs(self.rules_name), device=self.device,
            workers=workers, checkpoint=checkpoint, after_epoch=report, progress=progress,
        )  # fmt: skip
        self.network, self.history = trained.network, trained.history
        self.seconds = time.monotonic() - began
        return self

    @deterministic_method
    @torch.no_grad()
    def predict(self, images: Any, *, refined: bool = False, batch: int = 16, progress: bool = False) -> NSAPrediction:
        """Anomaly maps and scores of images as `PNI.predict` takes them.

        batch: images that go through the network together.  Raises PNIError for what is no image, when the model is not
        fitted, and for `refined` maps, which NSA has not.
        """
        if refined:
            raise PNIError("NSA has no refinement network: leave --refined out")
        if self.network is None:
            raise PNIError("the model is not fitted: call fit(train) or NSA.load(folder)")
        config, given = self.config, as_images(images, self.config.geometry)
        if len(given) == 0:
            raise PNIError("there are no images to score: check the folder")
        crop = config.crop(self.rules)
        low = (config.size - crop) // 2
        maps = np.zeros((len(given), config.size, config.size), np.float32)
        middle = maps[:, low : low + crop, low : low + crop]
        training = self.network.training
        self.network.eval()
        for start in tqdm(range(0, len(given), batch), desc="scoring", unit="batch", disable=not progress):
            chosen = range(start, min(start + batch, len(given)))
            pixels = torch.stack([given.load(i)[:, low : low + crop, low : low + crop] for i in chosen]) * 255
            logits = self.network(network_input(pixels.to(self.device)))
            drawn = predicted(logits, config.patch_task.loss)[:, 0].cpu().numpy()
            if not np.isfinite(drawn).all():
                raise PNIError("the network's maps are not finite: fit again with a lower learning rate")
            middle[list(chosen)] = drawn
        self.network.train(training)
        reduce = np.mean if config.image_score == "mean" else np.max
        scores = reduce(middle.reshape(len(given), -1), axis=1)
        return NSAPrediction(config, given.names, maps, scores.astype(np.float32))

    def decision(self, *, refined: bool = False) -> tuple[float, str]:
        """No normal-only threshold, and why."""
        return math.nan, NSAPrediction.threshold_note

    def map_limits(self, *, refined: bool = False) -> tuple[float, float]:
        """Of the labels: 0 to 1, or, continuous ones, to twice the class's midpoint in grey levels."""
        return 0.0, 2 * self.rules.midpoint if self.config.patch_task.label == "continuous" else 1.0

    def fingerprint(self, *, refined: bool = False) -> str:
        """SHA-256 (hex) of what was learnt; there is nothing to refine."""
        if self.network is None:
            raise PNIError("the model is not fitted: nothing to identify")
        digest = hashlib.sha256(f"{self.rules_name}{self.config.task}{self.config.size}".encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, folder: Path | str) -> None:
        """Write the fitted model: safetensors and JSON, checksums; `encoder.safetensors` alone is a resnet18 for
        `backbone=resnet18, weights=FILE`."""
        if self.network is None:
            raise PNIError("the model is not fitted: nothing to save")
        state = self.network.state_dict()
        encoder = {name.removeprefix("encoder."): t for name, t in state.items() if name.startswith("encoder.")}
        others = {name: tensor for name, tensor in state.items() if not name.startswith("encoder.")}
        meta = {
            "kind": _KIND,
            "config": self.config.to_dict(),
            "rules": self.rules_name,
            "measured": list(self.rules.background or ()) if self.rules_name == "measured" else None,
            "texture": self.rules.texture,
            "train_fingerprint": self.train_fingerprint,
            "train_paths": self.train_paths,
            "history": self.history,
            "seconds": self.seconds,
        }
        write_artefact(folder, {"encoder": encoder, "decoder": others}, meta)

    @classmethod
    def load(cls, folder: Path | str, device: str = "cpu") -> "NSA":
        """Inverse of `save`.  Raises PNIError for what is no NSA model, or is damaged."""
        tensors, meta = read_artefact(folder)
        if meta.get("kind") != _KIND:
            raise PNIError(f"{folder}: not a fitted NSA model: give the folder that `pni nsa fit` wrote")
        try:
            model = cls(NSAConfig(**meta["config"]), device)
            network = NSANet().to(device).to(memory_format=torch.channels_last)
            state = {f"encoder.{name}": tensor for name, tensor in tensors["encoder"].items()} | tensors["decoder"]
            network.load_state_dict(state)
            model.network = network.eval()
            model.rules_name = meta["rules"]
            model.rules = CLASSES.get(model.rules_name, ClassRules(texture=meta["texture"]))
            model.history, model.seconds = meta["history"], meta["seconds"]
            model.train_fingerprint, model.train_paths = meta["train_fingerprint"], meta["train_paths"]
        except (KeyError, TypeError, RuntimeError, PNIError) as fault:
            raise PNIError(f"{folder}: its parts do not fit together ({fault}): delete it and fit again") from None
        return model
