"""Several processes fit, paint and write in one place at the same moment: nothing is lost, nothing is mixed.

Five rounds here, fifty in `make stress`.  Each round starts in an empty folder, where the races are.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from crew import STRESS, Crew
from tiny import SCATTERING, write_category

from pnilib.apps.reproduce.settings import SWITCHES
from pnilib.config import PNIConfig
from pnilib.data import load_dataset
from pnilib.detector.pni import PNI
from pnilib.detector.training_pool import build_pool
from pnilib.store.artefacts import read_artefact, write_artefact

ROUNDS = 50 if STRESS else 5
CONFIG = SCATTERING.replace(
    calibration_images=0, image_resize=48, image_crop=48, dim=8, mlp_epochs=2, pool_images=4, pool_folds=2
)


@pytest.fixture(scope="module", params=[2, 4])
def crew(request: pytest.FixtureRequest) -> Iterator[Crew]:
    found = Crew(request.param)
    yield found
    found.close()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("races")
    write_category(root, n_train=3, n_good=1, n_bad=1)
    PNI(CONFIG).fit(load_dataset("mvtec", root, "part").train).save(root / "model")
    return root


def rounds(crew: Crew, root: Path, task: Callable[..., Any], arguments: Callable[[int], tuple[Any, ...]]) -> Any:
    """One list of answers a round; each process gets root, an empty folder and arguments(its number)."""
    work = root / "work"
    for _ in range(ROUNDS):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        yield crew.do(task, [(root, work, *arguments(k)) for k in range(len(crew.lines))])


# -- artefacts -----------------------------------------------------------------------------------


def write_and_read(root: Path, work: Path, value: int) -> list[tuple[int, ...]]:
    """The values in the two tensors and in the meta of what is read, after each of some writes."""
    found = []
    for _ in range(10):
        tensors = {name: {"x": torch.full((5,), value)} for name in ("one", f"of{value}")}
        write_artefact(work / "model", tensors, {"value": value})
        kept, meta = read_artefact(work / "model")
        found.append((meta["value"], *(int(group["x"][0]) for group in kept.values())))
    return found


@pytest.mark.parametrize("equal", [True, False])
def test_an_artefact_is_always_there_and_of_one_writer(crew: Crew, root: Path, equal: bool) -> None:
    for answers in rounds(crew, root, write_and_read, lambda k: (0 if equal else k,)):
        for answer in answers:
            assert all(tensors == [value, value] for value, *tensors in answer)
        assert [path.name for path in (root / "work").iterdir()] == ["model"]  # no litter


# -- stages of a fit -----------------------------------------------------------------------------


def fit(root: Path, work: Path, config: PNIConfig) -> str:
    model = PNI(config).fit(load_dataset("mvtec", root, "part").train, workdir=work)
    return digest(model)


def digest(model: PNI) -> str:
    """Of all that was fitted."""
    assert model.coreset is not None and model.position is not None and model.mlp is not None
    found = hashlib.sha256(model.coreset.embedding.numpy().tobytes() + model.position.counts.tobytes())
    for tensor in [*model.embedder.state().values(), *model.mlp.state_dict().values()]:
        found.update(tensor.numpy().tobytes())
    return found.hexdigest()


# The plan's units of these switches follow one another, so that two workers do them side by side: features and coreset
# are shared by all, the network by the first and the last.
SHARED = [{}, *(SWITCHES[name][1] for name in ("B1", "B2", "B4"))]


@pytest.mark.parametrize("changes", [[{}] * 4, SHARED], ids=["one configuration", "shared coreset"])
def test_fits_in_one_work_folder(crew: Crew, root: Path, changes: list[dict[str, Any]]) -> None:
    configs = [CONFIG.replace(**change) for change in changes[-len(crew.lines) :]]
    train = load_dataset("mvtec", root, "part").train
    expected = [digest(PNI(config).fit(train)) for config in configs]
    for answers in rounds(crew, root, fit, lambda k: (configs[k],)):
        assert answers == expected


# -- pools ---------------------------------------------------------------------------------------


def paint(root: Path, work: Path, changes: dict[str, Any]) -> tuple[float, float, str]:
    model = PNI.load(root / "model").with_config(**changes)
    pool = build_pool(model, load_dataset("mvtec", root, "part").train, work)
    items = [pool.item(k) for k in range(pool.n)]
    blob = b"".join(item[name].tobytes() for item in items for name in ("image", "map", "mask"))
    return pool.low, pool.high, hashlib.sha256(blob).hexdigest()


@pytest.mark.parametrize("defects", ["scar", "scar or cutpaste"])
def test_pools_in_one_work_folder(crew: Crew, root: Path, tmp_path: Path, defects: str) -> None:
    """The same pool; and pools of several generators, which share the cross-fitted models."""
    names = defects.split(" or ")
    changes = [
        dict(defects=names[k % len(names)], pool_maps="held_out" if len(names) > 1 else "leave_out")
        for k in range(len(crew.lines))
    ]
    expected = [paint(root, tmp_path, change) for change in changes]
    for answers in rounds(crew, root, paint, lambda k: (changes[k],)):
        assert answers == expected
