"""From fitted models to refined ones: pool, network, calibration (PNI sec. 3.3).

One network for each model, or one for all of them (B38).  What is on disk already is used: a killed run resumes with
the same call.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pnilib.data import Split
from pnilib.detector import steps
from pnilib.detector.folds import drop_folds
from pnilib.detector.pni import PNI
from pnilib.detector.training_pool import build_pool
from pnilib.errors import PNIError
from pnilib.machine import deterministic
from pnilib.maps import require_map_score
from pnilib.refinement.fusion import Refinement
from pnilib.refinement.network import build_network
from pnilib.refinement.pool import Pool
from pnilib.refinement.training import train_network
from pnilib.store.locks import lock_folder

__all__ = ["checkpoint_folder", "refine"]


def refine(
    models: Mapping[str, tuple[PNI, Split]], work: Path | str, *, keep_folds: bool = False, progress: bool = False
) -> dict[str, PNI]:
    """The models of some categories with one refinement network, trained on the pools of all of them.

    `models`: category -> (fitted model, its training images); pools go to work/<category>, checkpoints to
    `checkpoint_folder`. `keep_folds`: leave the cross-fitted models there, for a next pool of the same images.  Raises
    PNIError when the models' configurations differ or their image score is of the patches, and what `build_pool` and
    `train_network` raise.
    """
    work = Path(work)
    configs = [model.config for model, _ in models.values()]
    if any(config != configs[0] for config in configs):
        raise PNIError("one network for all categories needs models of one configuration: set refine_scope=category")
    require_map_score(configs[0], "a refined map")
    build_network(
        configs[0], kind=steps.network_class(configs[0])
    )  # a fault in its settings or weights shows before the pools are made
    pools = {
        name: build_pool(model, train, work / name, name, progress=progress) for name, (model, train) in models.items()
    }
    if not keep_folds:
        for name in models:
            drop_folds(work / name)
    key = hashlib.sha256(f"{configs[0].stage_key('refinement')} {[p.folder.name for p in pools.values()]}".encode())
    device = next(iter(models.values()))[0].device
    place = checkpoint_folder(work, list(models)) / f"network-{key.hexdigest()[:16]}"
    # another run that trains the same network leaves it in the checkpoint
    with lock_folder(place, wait=True), deterministic(device):
        trained = train_network(
            list(pools.values()),
            configs[0],
            **steps.training_of_network(configs[0]),
            device=device,
            checkpoint=place / "checkpoint",
            progress=progress,
        )
    refined = {}
    for name, (model, train) in models.items():
        pool = pools[name]
        refinement = Refinement(trained.network, pool.low, pool.high, trained.history, _facts(pool))
        refined[name] = model.with_refinement(refinement)
        if model.config.calibration_images > 0:
            refined[name].calibrate(train, progress=progress)
    return refined


def checkpoint_folder(work: Path, names: Sequence[str]) -> Path:
    """Where the checkpoint network-... of these categories' network lies."""
    return work / (names[0] if len(names) == 1 else "all")


def _facts(pool: Pool) -> dict[str, object]:
    kinds = Counter(pool.drawn(k)["kind"] for k in range(pool.n))
    return {"images": pool.n, "kinds": dict(sorted(kinds.items()))}
