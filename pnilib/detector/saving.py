"""A fitted model on disk: tensors by file, and facts; back again with every part checked."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pnilib.config import PNIConfig
from pnilib.detector import steps
from pnilib.detector.fitting import coreset_from, coreset_tensors
from pnilib.detector.prediction import Calibration
from pnilib.errors import PNIError
from pnilib.neighborhood import NeighborhoodMLP
from pnilib.position import PositionHistogram
from pnilib.refinement.fusion import Refinement
from pnilib.scoring import SoftVeto
from pnilib.store.artefacts import read_artefact

if TYPE_CHECKING:
    from pnilib.detector.pni import PNI

__all__ = ["fingerprint_of", "load_model", "parts_of"]

_KIND = "pnilib.PNI"


def parts_of(model: "PNI") -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Tensors by file, and facts: what `save` writes."""
    if model.coreset is None:
        raise PNIError("the model is not fitted: nothing to save")
    tensors = {"norm": model.embedder.state(), "coreset": coreset_tensors(model.coreset)}
    if model.position is not None:
        tensors["position"] = {"counts": torch.from_numpy(model.position.counts)}
    if model.veto is not None:
        constants = torch.tensor([model.veto.alpha, model.veto.distance], dtype=torch.float64)
        tensors["veto"] = {"constants": constants, "level": model.veto.level}
    if model.mlp is not None:
        tensors["neighborhood"] = model.mlp.state_dict()
    for name, found in (("calibration", model.calibration), ("refined_calibration", model.refined_calibration)):
        if found is not None:
            tensors[name] = {
                "image_scores": torch.from_numpy(found.image_scores),
                "limits": torch.tensor([found.low, found.high], dtype=torch.float64),
            }
    if model.refinement is not None:
        tensors["refinement"] = model.refinement.network.state_dict()
    meta = {
        "kind": _KIND,
        "config": model.config.to_dict(),
        "n_dist": model.coreset.n_dist,
        "weights_id": model.embedder.backbone.weights_id,
        "train_paths": model.train_paths,
        "train_fingerprint": model.train_fingerprint,
        "history": model.history,
        "seconds": model.seconds,
        "refinement": None if model.refinement is None else model.refinement.facts(),
    }
    return tensors, meta


def fingerprint_of(model: "PNI", refined: bool) -> str:
    """SHA-256 (hex) of what was learnt; `refined`: and of the refinement network.  Raises PNIError when not fitted."""
    digest = hashlib.sha256(model.embedder.backbone.weights_id.encode())
    for stem, group in parts_of(model)[0].items():
        if stem in ("calibration", "refined_calibration") or (stem == "refinement" and not refined):
            continue
        for name, tensor in sorted(group.items()):
            values = tensor.detach().cpu().contiguous().numpy()
            digest.update(f"{stem} {name} {values.dtype} {values.shape}\0".encode())
            digest.update(values.tobytes())
    return digest.hexdigest()


def load_model(cls: type["PNI"], directory: Path | str, device: str) -> "PNI":
    """Read a saved model.  Raises PNIError for what is no model, is damaged or newer, or has other weights."""
    tensors, meta = read_artefact(directory)
    if meta.get("kind") != _KIND:
        raise PNIError(f"{directory}: not a fitted PNI model: give the folder that `pni fit` wrote")
    try:
        config = PNIConfig.from_dict(meta["config"])
    except (KeyError, TypeError, PNIError) as error:
        raise PNIError(f"{directory}: its settings cannot be read ({error}): delete it and fit again") from None
    model = cls(config, device)
    if meta["weights_id"] != model.embedder.backbone.weights_id:
        raise PNIError(f"{directory}: was fitted with other {model.config.backbone} weights: give those, or fit again")
    try:
        model.embedder.load_state(tensors.get("norm", {}))
        model.coreset = coreset_from(tensors["coreset"], meta["n_dist"])
        if "position" in tensors:
            model.position = PositionHistogram(tensors["position"]["counts"].numpy())
        if "veto" in tensors:
            alpha, distance = tensors["veto"]["constants"].tolist()
            model.veto = SoftVeto(alpha, distance, tensors["veto"]["level"])
        if "neighborhood" in tensors:
            mlp = NeighborhoodMLP(
                model.coreset.embedding.shape[1], model.coreset.n_dist, model.config, steps.offsets(model.config)
            )
            mlp.load_state_dict(tensors["neighborhood"])
            model.mlp = mlp.to(device).eval()
        for name in ("calibration", "refined_calibration"):
            if name in tensors:
                low, high = tensors[name]["limits"].tolist()
                setattr(model, name, Calibration(tensors[name]["image_scores"].numpy(), low, high))
        if meta.get("refinement"):
            network = steps.network_class(model.config)(model.config)
            model.refinement = Refinement.restored(network, tensors["refinement"], meta["refinement"], device)
        model.train_paths, model.train_fingerprint = meta["train_paths"], meta["train_fingerprint"]
        model.history, model.seconds = meta["history"], meta["seconds"]
    except (KeyError, TypeError, RuntimeError):
        raise PNIError(f"{directory}: its parts do not fit together: delete it and fit again") from None
    return model
