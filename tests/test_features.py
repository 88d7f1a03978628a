"""Embedder, standardisation, extraction: against numpy, after a kill, with bad images."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from tiny import WITHOUT_WEIGHTS

from pnilib.config import PNIConfig
from pnilib.config.geometry import Geometry
from pnilib.errors import PNIError
from pnilib.features.extraction import Embedder, extract, raw_features
from pnilib.features.normalization import FeatureNorm, half_whitening, moments
from pnilib.store.artefacts import read_artefact, write_artefact

CONFIG = PNIConfig.profile("smoke").replace(**WITHOUT_WEIGHTS, image_resize=48, image_crop=48, dim=16)


class FakeSplit:
    """Random images; remembers which were read; stops with an error at `broken`."""

    def __init__(self, n: int = 7, broken: int | None = None, seed: int = 0) -> None:
        self.seed = seed
        self.samples = pd.DataFrame({"image_path": [f"part{i}.png" for i in range(n)]})
        self.broken = broken
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.samples)

    def image(self, index: int, geometry: Geometry) -> torch.Tensor:
        if index == self.broken:
            raise KeyboardInterrupt
        self.read.append(index)
        generator = torch.Generator().manual_seed(self.seed + index)
        return torch.rand(3, geometry.crop, geometry.crop, generator=generator)

    def fingerprint(self) -> str:
        return f"{len(self)} images of {self.seed}"


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    fitted = Embedder(CONFIG, "cpu")
    fitted.fit_norm(raw_features(FakeSplit(), fitted, batch=3, progress=False))
    return fitted


def blobs(n: int = 500, d: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return 1e4 + torch.randn(n, d, generator=generator) @ torch.randn(d, d, generator=generator)


def test_moments_equal_numpy_whatever_the_batches() -> None:
    values = blobs()
    mean, covariance = moments(values.split([1, 99, 400]))
    np.testing.assert_allclose(mean, values.double().mean(0), rtol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(values.double().T, bias=True), rtol=1e-9, atol=1e-9)


def test_half_whitening_by_hand() -> None:
    """Variances 16 and 81 become 4 and 9: factors 1/2 and 1/3, the larger first."""
    matrix = half_whitening(torch.diag(torch.tensor([16.0, 81.0]).double()), 5)
    torch.testing.assert_close(matrix, torch.tensor([[0, 1 / 2], [1 / 3, 0]]).double())


def test_half_whitened_training_features_have_the_root_of_their_variances() -> None:
    values = blobs()
    norm = FeatureNorm.fit("half_whiten", [values], 3)
    covariance = np.cov(norm(values).double().T, bias=True)
    largest = np.linalg.eigvalsh(np.cov(values.double().T, bias=True))[::-1][:3]
    np.testing.assert_allclose(covariance, np.diag(np.sqrt(largest)), atol=2e-3)
    peak = norm.linear.abs().argmax(0)
    assert (norm.linear[peak, torch.arange(3)] > 0).all()  # signs are fixed


def test_channel_norm_gives_mean_0_and_variance_1() -> None:
    result = FeatureNorm.fit("channel", [blobs()], 5)(blobs())
    torch.testing.assert_close(result.mean(0), torch.zeros(5), rtol=0, atol=2e-3)
    torch.testing.assert_close(result.std(0), torch.ones(5), rtol=2e-3, atol=0)


@pytest.mark.parametrize("kind", ["channel", "half_whiten"])
@pytest.mark.parametrize("constant", ["one", "all"])
def test_constant_channels_become_zeros(kind: str, constant: str) -> None:
    values = blobs()
    values[:, 2 if constant == "one" else slice(None)] = 7.0
    result = FeatureNorm.fit(kind, [values], 5)(values + 1)
    assert torch.isfinite(result).all()
    if constant == "all":
        assert torch.equal(result, torch.zeros_like(result))


def test_no_features_are_refused() -> None:
    with pytest.raises(ValueError, match="no features"):
        moments([])


def test_embed_is_norm_of_raw_in_the_announced_shape(embedder: Embedder) -> None:
    images = torch.rand(2, 3, 48, 48)
    features = embedder.embed(images)
    assert features.shape == (2, *embedder.grid, embedder.dim) == (2, 6, 6, 16)
    assert embedder.norm is not None and torch.equal(features, embedder.norm(embedder.raw(images)))
    torch.testing.assert_close(embedder.embed(images[1:]), features[1:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["none", "channel"])
def test_dim_without_half_whitening_is_the_number_of_channels(kind: str) -> None:
    embedder = Embedder(CONFIG.replace(feature_norm=kind), "cpu")
    embedder.fit_norm(raw_features(FakeSplit(2), embedder, progress=False))
    assert embedder.embed(torch.rand(1, 3, 48, 48)).shape[-1] == embedder.dim == 300


def test_resnet_features_have_the_chosen_dimension() -> None:
    embedder = Embedder(CONFIG.replace(backbone="resnet18", weights="random", feature_norm="none", dim=40), "cpu")
    embedder.fit_norm([])
    assert embedder.norm is None and embedder.state() == {}
    assert embedder.embed(torch.rand(1, 3, 48, 48)).shape == (1, 6, 6, 40)


@pytest.mark.parametrize("dim", [4, 8, 16])
def test_saved_state_gives_the_same_features(dim: int, embedder: Embedder, tmp_path: Path) -> None:
    """To the last digit, which depends on how the matrix lies in memory."""
    fresh, other = (Embedder(CONFIG.replace(dim=dim), "cpu") for _ in range(2))
    fresh.fit_norm(raw_features(FakeSplit(), fresh, progress=False))
    write_artefact(tmp_path / "norm", {"norm": fresh.state()}, {})
    other.load_state(read_artefact(tmp_path / "norm")[0]["norm"])
    images = torch.rand(1, 3, 48, 48)
    assert torch.equal(other.embed(images), fresh.embed(images))
    with pytest.raises(PNIError, match="feature_norm=none"):
        Embedder(CONFIG.replace(feature_norm="none"), "cpu").load_state(embedder.state())


def test_extract_equals_embed_one_by_one(embedder: Embedder, tmp_path: Path) -> None:
    split = FakeSplit()
    expected = torch.cat([embedder.embed(split.image(i, CONFIG.geometry)[None]) for i in range(7)]).numpy()
    in_memory = extract(split, embedder, batch=3, progress=False)
    mapped = extract(split, embedder, out=tmp_path / "sub" / "f.npy", batch=4, progress=False)
    np.testing.assert_allclose(in_memory, expected, atol=1e-5)
    np.testing.assert_allclose(mapped, expected, atol=1e-5)
    assert in_memory.dtype == np.float32 and isinstance(mapped, np.memmap) and not mapped.flags.writeable
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["f.npy"]


def killed(out: Path, embedder: Embedder) -> None:
    with pytest.raises(KeyboardInterrupt):
        extract(FakeSplit(broken=5), embedder, out=out, batch=2, progress=False)
    assert not out.exists()


def test_a_killed_extraction_goes_on(embedder: Embedder, tmp_path: Path) -> None:
    out = tmp_path / "f.npy"
    killed(out, embedder)
    again = FakeSplit()
    features = extract(again, embedder, out=out, batch=2, progress=False)
    assert sorted(again.read) == [4, 5, 6]
    np.testing.assert_array_equal(features, extract(FakeSplit(), embedder, batch=2, progress=False))


@pytest.mark.parametrize("stale", ["images", "configuration", "standardisation", "truncated", "sidecar"])
def test_what_does_not_fit_is_done_anew(stale: str, embedder: Embedder, tmp_path: Path) -> None:
    out = tmp_path / "f.npy"
    killed(out, embedder)
    if stale == "truncated":
        part = tmp_path / "f.npy.part"
        part.write_bytes(part.read_bytes()[:1000])
    if stale == "sidecar":
        (tmp_path / "f.npy.progress").write_text('{"done": 4')
    split = FakeSplit(seed=100 if stale == "images" else 0)
    if stale == "configuration":
        embedder = Embedder(CONFIG.replace(image_resize=64), "cpu")
    if stale in ("configuration", "standardisation"):
        other = Embedder(embedder.config, "cpu")
        other.fit_norm(raw_features(FakeSplit(seed=50), other, progress=False))
        embedder = other
    features = extract(split, embedder, out=out, progress=False)
    assert sorted(split.read) == list(range(7))
    np.testing.assert_allclose(features, extract(split, embedder, progress=False), atol=1e-5)


def test_the_sidecar_never_claims_more_than_was_written(embedder: Embedder, tmp_path: Path) -> None:
    killed(tmp_path / "f.npy", embedder)
    assert json.loads((tmp_path / "f.npy.progress").read_text())["done"] == 4
    part = np.load(tmp_path / "f.npy.part")
    assert np.abs(part[:4]).min(axis=(1, 2, 3)).max() > 0 and not part[4:].any()


def test_features_that_are_not_finite_name_the_image(embedder: Embedder) -> None:
    class Broken(FakeSplit):
        def image(self, index: int, geometry: Geometry) -> torch.Tensor:
            return super().image(index, geometry) / (0.0 if index == 4 else 1.0)

    with pytest.raises(PNIError, match=r"part4\.png: .*not finite"):
        extract(Broken(), embedder, batch=3, progress=False)


def test_too_little_room_is_said_before_the_work(
    embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, disk = psutil.virtual_memory()._replace(available=1000), (0, 0, 1000)
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    split = FakeSplit()
    with pytest.raises(PNIError, match="memory"):
        extract(split, embedder, progress=False)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("usage", (), {"free": disk[2]}))
    with pytest.raises(PNIError, match=r"f\.npy: .*free"):
        extract(split, embedder, out=tmp_path / "f.npy", progress=False)
    assert split.read == [] and not list(tmp_path.iterdir())
