"""The MLP sees the neighbors and nothing else, learns, and resumes to the same bytes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pnilib import neighborhood as module
from pnilib.config import PNIConfig
from pnilib.errors import PNIError
from pnilib.neighborhood import (
    NeighborhoodMLP,
    gather_neighbors,
    log_probability,
    neighbor_offsets,
    train_neighborhood,
)
from pnilib.released.neighborhood import leaked_offsets

CONFIG = PNIConfig(
    patch=3, mlp_layers=3, mlp_width=16, mlp_epochs=4, mlp_lr_step=2, mlp_batch=64, dist_size=4, mlp_lr=0.01
)


def maps(n: int = 6, side: int = 7, d: int = 5) -> Tensor:
    return torch.randn(n, side, side, d, generator=torch.Generator().manual_seed(0))


def test_offsets_by_hand() -> None:
    assert neighbor_offsets(3) == [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]


@pytest.mark.parametrize("pad", ["zero", "replicate"])
@pytest.mark.parametrize("offsets", [neighbor_offsets, leaked_offsets])
def test_gathered_neighborhood_equals_the_literal_loop(
    pad: str, offsets: Callable[[int], list[tuple[int, int]]]
) -> None:
    x = maps()
    cells = torch.tensor([0, 6, 24, 48, 49, 2 * 49 + 13])
    got = gather_neighbors(x, cells, offsets(5), pad)
    for row, cell in zip(got, cells.tolist(), strict=True):
        i, h, w = cell // 49, cell % 49 // 7, cell % 7
        expected = []
        for dh, dw in offsets(5):
            y, z = h + dh, w + dw
            if pad == "replicate":
                y, z = min(max(y, 0), 6), min(max(z, 0), 6)
            inside = 0 <= y < 7 and 0 <= z < 7
            expected.append(x[i, y, z] if inside else torch.zeros(5))
        assert torch.equal(row, torch.cat(expected))


@pytest.mark.parametrize("pad", ["zero", "replicate"])
@pytest.mark.parametrize("offsets", [neighbor_offsets, leaked_offsets])
def test_whole_map_equals_gathered(pad: str, offsets: Callable[[int], list[tuple[int, int]]]) -> None:
    config, x = CONFIG.replace(nb_pad=pad), maps()
    mlp = NeighborhoodMLP(5, 4, config, offsets(config.patch)).eval()
    gathered = mlp(gather_neighbors(x, torch.arange(6 * 49), offsets(config.patch), pad)).view(6, 7, 7, 4)
    assert torch.allclose(mlp.logits_map(x), gathered, atol=1e-5)


def test_the_centre_cannot_be_read() -> None:
    mlp, x = NeighborhoodMLP(5, 4, CONFIG).eval(), maps(1)
    changed = x.clone()
    changed[0, 3, 3] += 100.0
    difference = (mlp.logits_map(x) - mlp.logits_map(changed)).abs().amax(-1)[0]
    assert difference[3, 3] == 0 and difference[3, 4] > 0 and difference[0, 0] == 0


def test_parameter_count_of_the_paper() -> None:
    """205,578,240: 81,920 -> 2,048, nine times 2,048 -> 2,048, nine batch normalizations."""
    with torch.device("meta"):
        mlp = NeighborhoodMLP(1024, 2048, PNIConfig())
    assert sum(p.numel() for p in mlp.parameters()) == 205_578_240


def test_temperature_by_hand() -> None:
    log_p = log_probability(torch.tensor([[0.0, 2.0]]), 2.0)
    assert torch.allclose(log_p.exp(), torch.tensor([[1.0, torch.e]]) / (1 + torch.e))


def predictable(n: int = 12) -> tuple[Tensor, Tensor]:
    """Columns cycle through four prototypes: the neighbors tell the centre."""
    generator = torch.Generator().manual_seed(1)
    prototypes = torch.randn(4, 5, generator=generator)
    shift = torch.randint(4, (n, 1, 1), generator=generator)
    target = (torch.arange(8)[None, None, :] + shift).expand(n, 8, 8) % 4
    return prototypes[target] + 0.1 * torch.randn(n, 8, 8, 5, generator=generator), target.contiguous()


def test_learns_and_resumes_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, target = predictable()
    config = CONFIG.replace(mlp_dropout=0.1)
    whole = train_neighborhood(x, target, 4, config)
    assert whole.history[-1]["loss"] < 0.3 < whole.history[0]["loss"]  # log 4 = 1.39 before learning
    assert [row["lr"] for row in whole.history] == [0.01, 0.01, pytest.approx(0.001), pytest.approx(0.001)]
    hits = (whole.mlp.logits_map(x).argmax(-1) == target).float().mean()
    assert hits > 0.9

    saved = module.write_artefact
    calls = 0

    def killed_after_two(*args: object) -> None:
        nonlocal calls
        saved(*args)  # type: ignore[arg-type]
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_artefact", killed_after_two)
    with pytest.raises(KeyboardInterrupt):
        train_neighborhood(x, target, 4, config, checkpoint=tmp_path / "mlp")
    monkeypatch.setattr(module, "write_artefact", saved)
    resumed = train_neighborhood(x, target, 4, config, checkpoint=tmp_path / "mlp")
    assert resumed.history == whole.history
    for name, value in whole.mlp.state_dict().items():
        assert torch.equal(value, resumed.mlp.state_dict()[name]), name


def test_border_cells_do_not_train() -> None:
    x, target = predictable()
    config = CONFIG.replace(border="replicate", border_cells=2, patch=3)
    poisoned = target.clone()
    poisoned[:, :2] = 3 - poisoned[:, :2]
    a = train_neighborhood(x, target, 4, config)
    b = train_neighborhood(x, poisoned, 4, config)
    assert a.history == b.history


def test_bf16_learns_too() -> None:
    x, target = predictable()
    assert train_neighborhood(x, target, 4, CONFIG.replace(precision="bf16")).history[-1]["loss"] < 0.5


def test_a_diverging_loss_stops_with_the_epoch() -> None:
    x, target = predictable()
    x[0, 0, 0, 0] = float("nan")
    with pytest.raises(PNIError, match=r"loss is nan in epoch 1: lower mlp_lr"):
        train_neighborhood(x, target, 4, CONFIG)
