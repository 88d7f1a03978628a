"""The stages of a fit: what each setting of the configuration changes, what each `setting` needs, what is made once."""

import dataclasses
import hashlib
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision
from tiny import RESNET, SCATTERING, write_category

from pnilib import neighborhood
from pnilib.config import NEEDS, RELEASED_STEPS, SETTINGS, STAGES, PNIConfig
from pnilib.data import Dataset
from pnilib.detector import fitting
from pnilib.detector.fitting import coreset_tensors, fit_stages
from pnilib.detector.pni import PNI
from pnilib.detector.runs import fit_or_load
from pnilib.errors import PNIError
from pnilib.features.extraction import Embedder

BASE = SCATTERING.replace(
    image_resize=56, image_crop=48, dim=8, dist_size=8, mlp_epochs=2, calibration_images=0, border_cells=1
)
RANDOM = dict(backbone="resnet18", weights="random", feature_norm="none")
FITTED = STAGES[: STAGES.index("scoring")]

CHANGES: dict[str, Any] = dict(
    image_resize=60, image_crop=56, resize="short", agg_patch=3, dim=6, feature_norm="channel", backbone=RANDOM,
    border="replicate", emb_ratio=0.3, emb_max=3, dist_size=4, seed=2,
    patch=5, nb_pad="replicate", mlp_layers=1, mlp_width=12, mlp_dropout=0.5,
    mlp_epochs=1, mlp_batch=32, mlp_lr=0.01, mlp_lr_step=1, precision="bf16",
)  # fmt: skip
"""Another value of each field that a fit depends on; those of UNDER show under other settings only."""
UNDER: dict[str, tuple[dict[str, Any], dict[str, Any]]] = dict(
    levels=(RANDOM, dict(levels="4,8")),
    aggregation=(RANDOM, dict(aggregation="concat")),
    veto_nats=(dict(setting="position", gate="soft"), dict(veto_nats=5.0)),
    weights=(RANDOM, dict(weights="FILE")),
    border_cells=(dict(border="replicate"), dict(border_cells=2)),
    mlp_lr_gamma=(dict(mlp_lr_step=1), dict(mlp_lr_gamma=0.5)),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_category(tmp_path_factory.mktemp("tiny"), n_train=3, n_good=1, n_bad=1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a resnet18, other than those of seed 0."""
    file = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    torch.manual_seed(5)
    safetensors.torch.save_file(torchvision.models.resnet18(weights=None).state_dict(), file)
    return file


def artefacts(data: Dataset, config: PNIConfig) -> dict[str, str]:
    """Stage -> hash of what a fit makes there."""
    embedder = Embedder(config, "cpu")
    found = fit_stages(data.train, embedder, None, device="cpu", progress=False)
    parts: dict[str, dict[str, Any]] = {
        "features": {"all": embedder.embed(torch.stack([data.train.image(i, config.geometry) for i in range(3)]))},
        "coreset": coreset_tensors(found.coreset) | {"n": torch.tensor(found.coreset.n_dist)},
    }
    if found.position is not None:
        parts["position"] = {"counts": torch.from_numpy(found.position.counts.astype(int))}
    if found.veto is not None:
        parts["position"]["level"] = found.veto.level
    if found.neighborhood is not None:
        parts["neighborhood"] = found.neighborhood.mlp.state_dict()
    blobs = {stage: [tensor.numpy().tobytes() for _, tensor in sorted(part.items())] for stage, part in parts.items()}
    return {stage: hashlib.sha256(b"".join(blob)).hexdigest() for stage, blob in blobs.items()}


@pytest.fixture(scope="module")
def plain(data: Dataset) -> Any:
    return cache(lambda items: artefacts(data, BASE.replace(**dict(items))))


def test_every_field_of_a_fitted_stage_is_tried() -> None:
    wanted = {f.name for f in dataclasses.fields(PNIConfig) if f.metadata["stage"] in FITTED}
    wanted -= {"bit_depth"}  # changes images of 16 bits alone: tests/test_images.py
    assert wanted == CHANGES.keys() | UNDER.keys() and not CHANGES.keys() & UNDER.keys()


STEPS = {name: stage for name, stage in RELEASED_STEPS.items() if stage in FITTED and name != "sparse_projection"}
"""Without the projection, which is none of so few dimensions: tests/test_released.py."""


@pytest.mark.parametrize("name", [*CHANGES, *UNDER, *STEPS])
def test_a_field_changes_its_stage_and_none_before(name: str, data: Dataset, weights: Path, plain: Any) -> None:
    """Else a sweep of it would redo work that it does not touch, or a stale artefact would be taken for its own."""
    under, change = UNDER.get(name, ({}, {"released": name} if name in STEPS else {name: CHANGES.get(name)}))
    change = change[name] if isinstance(change.get(name), dict) else change
    change = {key: str(weights) if value == "FILE" else value for key, value in change.items()}
    before, after = plain(tuple(under.items())), artefacts(data, BASE.replace(**under | change))
    changed = {stage for stage in before if before[stage] != after[stage]}
    stage = STEPS.get(name) or PNIConfig.__dataclass_fields__[name].metadata["stage"]
    first, possible = {
        "features": ({"features"}, {"features", "coreset", "position", "neighborhood"}),
        "coreset": ({"coreset"}, {"coreset", "position", "neighborhood"}),
        "window": ({"position", "neighborhood"}, {"position", "neighborhood"}),
        "position": ({"position"}, {"position"}),
        "neighborhood": ({"neighborhood"}, {"neighborhood"}),
    }[stage]  # fmt: skip
    assert first <= changed <= possible


def test_fields_of_later_stages_change_nothing_that_is_fitted(data: Dataset, plain: Any) -> None:
    """All of them at once, each at another allowed value; `setting` and `gate` choose among stages: below."""
    late = {}
    for f in dataclasses.fields(PNIConfig):
        if f.metadata["stage"] not in FITTED and f.name not in ("setting", "gate", "released"):
            low, choices = f.metadata["low"], f.metadata["choices"]
            allowed = choices or ([low, f.metadata["high"]] if low is not None else ["builtin", "scar", "1,1,1,1"])
            late[f.name] = next(value for value in allowed if value != getattr(BASE, f.name))
    late["released"] = tuple(name for name, stage in RELEASED_STEPS.items() if stage not in (*FITTED, "decision"))
    late["combine"] = "score"  # beside a gate by rank
    config = BASE.replace(**late)
    assert all(getattr(config, name) != getattr(BASE, name) for name in late) and len(late) > 35
    assert artefacts(data, config) == plain(())
    assert all(config.stage_key(stage) == BASE.stage_key(stage) for stage in FITTED)


# -- what a setting needs --------------------------------------------------------------------------


@pytest.mark.parametrize("setting", SETTINGS)
def test_only_what_the_setting_needs_is_fitted_and_what_it_lacks_is_named(
    setting: str, data: Dataset, tmp_path: Path
) -> None:
    model = PNI(BASE.replace(setting=setting)).fit(data.train, workdir=tmp_path / "work")
    assert (model.position is None, model.mlp is None) == (
        "position" not in NEEDS[setting],
        setting in ("A", "position"),
    )
    assert set(model.seconds) == {"features", "coreset", *NEEDS[setting]}
    stages = {path.name.split("-")[0] for path in (tmp_path / "work").iterdir()}
    assert stages == {"features", "coreset", *NEEDS[setting]} - {"position"}  # quick, not kept
    able = {"A": ["A"], "B": ["A", "B"], "position": ["A", "position"], "E": ["A", "B", "position", "E"]}[setting]
    assert model.settings == able

    whole = PNI(BASE).fit(data.train)
    model.save(tmp_path / "model")
    loaded, image = PNI.load(tmp_path / "model"), data.test.image(0, BASE.geometry)
    assert loaded.settings == able
    assert ("p_position" in loaded.explain(image), "p_neighborhood" in loaded.explain(image)) == (
        "position" in NEEDS[setting], "neighborhood" in NEEDS[setting],
    )  # fmt: skip
    for name in SETTINGS:
        if name in able:
            expected = whole.with_config(setting=name).predict(data.test)
            for found in (model, loaded):
                assert found.with_config(setting=name).predict(data.test).maps.tobytes() == expected.maps.tobytes()
            continue
        lacking = " and ".join(part for part in NEEDS[name] if part not in NEEDS[setting])
        message = f"^setting={name}: the model was fitted without the distribution of {lacking}: fit with setting=E, or"
        for refused in (
            lambda name=name: loaded.with_config(setting=name),
            lambda name=name: loaded.predict_variants(data.test, {name: loaded.config.replace(setting=name)}),
        ):
            with pytest.raises(PNIError, match=message):
                refused()


# -- made once -------------------------------------------------------------------------------------


def test_finished_stages_are_not_made_again(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: Counter[str] = Counter()

    def counted(owner: Any, name: str) -> None:
        whole = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, **rest: made.update([name]) or whole(*args, **rest))

    for owner, name in ((fitting, "extract"), (fitting, "select_coreset"), (neighborhood, "_save_checkpoint")):
        counted(owner, name)

    def work(**change: Any) -> tuple[int, ...]:
        made.clear()
        PNI(RESNET.replace(calibration_images=0, **change)).fit(data.train, workdir=tmp_path)
        return made["extract"], made["select_coreset"], made["_save_checkpoint"]

    assert work() == (1, 1, 3)
    for change in (
        {},
        dict(combine="score", sigma=4.0),
        dict(released="emb_bins"),
        dict(setting="B"),
        dict(setting="A"),
    ):
        assert work(**change) == (0, 0, 0), change
    assert work(mlp_lr=1e-2) == (0, 0, 3)
    assert work(patch=5) == (0, 0, 3)
    assert work() == (0, 0, 0)  # all networks are kept
    assert work(emb_ratio=0.2) == (0, 1, 3)
    assert work(agg_patch=1) == (1, 1, 3)


def test_a_fit_reads_each_file_once_for_its_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And again after the file was changed, though the data set was opened before."""
    data = write_category(tmp_path / "data", n_train=3, n_good=1, n_bad=1)
    whole, hashed = hashlib.file_digest, []
    monkeypatch.setattr(
        hashlib, "file_digest", lambda file, kind: hashed.append(Path(file.name).name) or whole(file, kind)
    )
    config = BASE.replace(calibration_images=2)
    first = fit_or_load(data.train, config, tmp_path / "run")
    assert sorted(hashed) == ["000.png", "001.png", "002.png"]
    assert first.train_fingerprint == data.train.fingerprint() and len(hashed) == 3
    write_category(tmp_path / "data", n_train=3, n_good=1, n_bad=1, seed=9)
    with pytest.raises(PNIError, match="holds a model of other training images"):
        fit_or_load(data.train, config, tmp_path / "run")
    assert len(hashed) == 6
