"""Does the neighborhood gate earn its time?  The paper's own size on a category of its own benchmark.

    python benchmarks/neighborhood_on_screw.py --root DATA/mvtec --out FOLDER --device cuda

Features: EfficientNet-Lite0, 152 dimensions, 480 px; p = 9, |C_dist| = 2,048, |C_emb| = 1 % of the patches, an MLP of
10 x 2,048 trained for 15 epochs on every patch (PNI sec. 3.2, 4.1).  Minutes on a large GPU, 8 to 11 hours on two cores
(`--share 0.2`: a fifth of the training images for the MLP).  Runs, one after another, each appended to results.jsonl
(a run that is there is not made again; `--seconds` starts none later than that):

    main      after every epoch: p(c | N) of the nearest vector against tau, on background, part and defects; metrics
    held_out  a tenth of the training images kept from the MLP: likelihood by T, and the neighborhood as a soft veto
    leaked    the release's indexing, which leaves the centre in (B1)
    border    two border cells left out for everything (B11)
    seed1     main with another seed
"""

import argparse
import json
import time
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pnilib.config import PNIConfig
from pnilib.coreset import Coreset, select_coreset
from pnilib.data import load_dataset
from pnilib.features.extraction import Embedder
from pnilib.maps import anomaly_maps, repeat_inner
from pnilib.metrics import PixelStatistics, image_auroc
from pnilib.neighborhood import NeighborhoodMLP, log_probability, train_neighborhood
from pnilib.neighbors import nearest
from pnilib.position import PositionHistogram, count_positions
from pnilib.scoring import (
    gate,
    gated_nearest,
    mean_probability,
    patch_distances,
    product_probability,
    soft_nearest,
    tau,
)
from pnilib.synthesis.foreground import foreground_mask

SCREW = PNIConfig(backbone="tf_efficientnet_lite0", aggregation="concat", agg_patch=3)
RUNS: dict[str, dict[str, Any]] = {
    "main": {}, "held_out": {}, "leaked": dict(released="centre_leak"), "border": dict(border="replicate"),
    "seed1": dict(seed=1), "seed2": dict(seed=2),
}  # fmt: skip
TEMPERATURES = (0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0)
QUANTILES = (0.01, 0.05, 0.25, 0.5)


def measure(patches: np.ndarray, masks: np.ndarray, labels: np.ndarray, side: int, sigma: float) -> dict[str, float]:
    """I-AUROC (maximum of the map), P-AUROC, AUPRO (FPR 0.3), %, of patch scores (n, gh, gw)."""
    torch.set_num_threads(1)
    pixels, scores = PixelStatistics(), []
    for patch, mask in zip(patches, masks, strict=True):
        one = anomaly_maps(torch.from_numpy(patch)[None], side, sigma)[0].numpy()
        scores.append(float(one.max()))
        pixels.update(one, mask)
    found = {"i": image_auroc(np.array(scores), labels), "p": pixels.auroc(), "aupro": pixels.aupro([0.3])[0.3]}
    return {name: round(100 * value, 2) for name, value in found.items()}


class Screw:
    """Features of the category on the device, what the test images show, and the rows that are written."""

    def __init__(self, given: argparse.Namespace, config: PNIConfig) -> None:
        self.given, self.device, self.config = given, given.device, config
        data = load_dataset("mvtec", given.root, "screw")
        embedder = Embedder(config, given.device)
        if given.weights:  # of the package, under timm's names: its preprocessing
            embedder.backbone.mean.fill_(127 / 255)
            embedder.backbone.std.fill_(128 / 255)
        self.train, self.test = (self._features(split, embedder) for split in (data.train, data.test))
        grid = self.train.shape[1]
        cell = config.image_crop // grid
        self.labels = data.test.samples["label"].to_numpy()
        masks, parts = [], []
        for i in range(len(data.test)):
            mask = data.test.mask(i, config.geometry)
            assert mask is not None
            masks.append(mask.numpy())
            parts.append(foreground_mask(data.test.image(i, config.geometry).permute(1, 2, 0).numpy()))
        self.masks = np.stack(masks)
        blocks = (len(masks), grid, cell, grid, cell)
        self.defect = torch.from_numpy(self.masks.reshape(blocks).any((2, 4))).flatten(1)
        self.part = torch.from_numpy(np.stack(parts).reshape(blocks).mean((2, 4)) > 0.5).flatten(1)
        self.pool = ProcessPoolExecutor(given.processes, mp_context=get_context("spawn"))
        self.pending: list[tuple[dict[str, Any], Future[dict[str, float]]]] = []

    def _features(self, split: Any, embedder: Embedder) -> Tensor:
        out = []
        for start in range(0, len(split), 16):
            images = [split.image(i, self.config.geometry) for i in range(start, min(start + 16, len(split)))]
            out.append(embedder.embed(torch.stack(images)))
        return torch.cat(out)

    def say(self, row: dict[str, Any]) -> None:
        print(json.dumps(row), flush=True)
        with (self.given.out / "results.jsonl").open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(row) + "\n")

    def submit(self, row: dict[str, Any], patches: list[Tensor], config: PNIConfig) -> None:
        """Measure scores of all test images beside what goes on."""
        gh = self.test.shape[1]
        stacked = torch.stack(patches).view(-1, gh, gh)
        if config.border == "replicate":
            stacked = repeat_inner(stacked, config.border_cells)
        job = (stacked.cpu().numpy(), self.masks, self.labels, config.image_crop, config.sigma)
        self.pending.append((row, self.pool.submit(measure, *job)))

    def collect(self) -> None:
        for row, job in self.pending:
            self.say(row | job.result())
        self.pending = []


class Fitted:
    """Coresets, targets and histogram of one configuration."""

    def __init__(self, screw: Screw, config: PNIConfig) -> None:
        self.config = config
        began = time.perf_counter()
        self.coreset: Coreset = select_coreset(screw.train.cpu().numpy(), config)
        self.vectors, self.to_dist = (
            tensor.to(screw.device) for tensor in (self.coreset.embedding, self.coreset.emb_to_dist)
        )
        self.n_dist = self.coreset.n_dist
        dist = self.vectors[: self.n_dist]
        idx = [nearest(image.flatten(0, 1), dist)[1][:, 0].cpu() for image in screw.train]
        self.target = torch.stack(idx).view(screw.train.shape[:3])
        border = config.border_cells if config.border == "replicate" else 0
        self.position = PositionHistogram(count_positions(self.target.numpy(), self.n_dist, config.patch, border))
        self.p_position = self.position.probability(slice(None)).to(screw.device)
        self.marginal = self.position.marginal().to(screw.device)
        self.tau = tau(len(self.vectors))
        self.seconds = time.perf_counter() - began


@torch.no_grad()
def examine(screw: Screw, fit: Fitted, mlp: NeighborhoodMLP, head: dict[str, Any], metrics: bool) -> None:
    """p(c | N) of each test patch's nearest vector, and, with `metrics`, what every rule scores."""
    config, nearest_p, kinds = fit.config, [], []
    scores: dict[str, list[Tensor]] = {}
    for i, image in enumerate(screw.test):
        distances = patch_distances(image.flatten(0, 1), fit.vectors)
        logits = mlp.logits_map(image[None])[0].flatten(0, 1)
        near = fit.to_dist[distances.argmin(1)][:, None]
        p = {t: log_probability(logits, t).exp() for t in ((2.0, 1.0, 0.5) if metrics else (2.0,))}
        nearest_p.append(p[2.0].gather(1, near)[:, 0].cpu())
        kind = torch.where(screw.part[i], 1, 0)
        kinds.append(torch.where(screw.defect[i], 2, kind) if screw.labels[i] else kind)
        if not metrics:
            continue
        here = {"A": distances.amin(1)}
        by_place = gated_nearest(distances, gate(fit.p_position, fit.tau), fit.to_dist)[0]
        here["position"] = by_place
        for t, p_nb in p.items():
            by_nb = gated_nearest(distances, gate(p_nb, fit.tau), fit.to_dist)[0]
            both = mean_probability(p_nb, fit.p_position)
            product = product_probability(p_nb, fit.p_position, fit.marginal)
            here |= {
                f"B T={t:g}": by_nb,
                f"E eq. (6) T={t:g}": gated_nearest(distances, gate(both, fit.tau), fit.to_dist)[0],
                f"E mean of scores T={t:g}": (by_nb + by_place) / 2,
                f"E product T={t:g}": gated_nearest(distances, gate(product, fit.tau), fit.to_dist)[0],
            }
        for name, score in here.items():
            scores.setdefault(name, []).append(score)
    p_all, kind_all = torch.cat(nearest_p), torch.cat(kinds)
    for k, name in enumerate(("background", "part", "defect")):
        some = p_all[kind_all == k].double()
        quantiles = {f"q{q:g}": float(f"{some.quantile(q):.3g}") for q in QUANTILES}
        shut = {"shut_T2": round(float((some <= fit.tau).double().mean()), 6), "patches": len(some)}
        screw.say(head | {"what": "p of nearest", "where": name, "tau": float(f"{fit.tau:.3g}")} | quantiles | shut)
    for name, parts in scores.items():
        screw.submit(head | {"what": "metrics", "rule": name}, parts, config)


@torch.no_grad()
def held_out(screw: Screw, fit: Fitted, mlp: NeighborhoodMLP, images: list[int], head: dict[str, Any]) -> None:
    """Likelihood of held-out normal images by T; then min_c d + (dbar / 10) max(0, log pbar(c) - log p_T(c | N))."""
    total, count = dict.fromkeys(TEMPERATURES, 0.0), 0
    mean = {t: torch.zeros(fit.n_dist, dtype=torch.float64, device=screw.device) for t in TEMPERATURES}
    loo = []
    for i in images:
        logits = mlp.logits_map(screw.train[i][None])[0].flatten(0, 1)
        target = fit.target[i].flatten().to(screw.device)
        for t in TEMPERATURES:
            log_p = log_probability(logits, t)
            total[t] -= float(log_p.gather(1, target[:, None]).double().sum())
            mean[t] += log_p.exp().double().sum(0)
        count += len(target)
        distances = patch_distances(screw.train[i].flatten(0, 1), fit.vectors)
        distances[:, (fit.coreset.image_idx == i).to(screw.device)] = torch.inf
        loo.append(float(distances.amin(1).mean()))
    best = min(TEMPERATURES, key=lambda t: total[t])
    screw.say(head | {"what": "held-out nats", "best": best} | {f"T={t:g}": round(total[t] / count, 4) for t in total})
    per_nat = float(np.mean(loo)) / 10
    for t in dict.fromkeys((best, 2.0)):
        base, scores = (mean[t] / count).clamp_min(1e-12).log().float(), []
        for image in screw.test:
            log_p = log_probability(mlp.logits_map(image[None])[0].flatten(0, 1), t)
            distances = patch_distances(image.flatten(0, 1), fit.vectors)
            scores.append(soft_nearest(distances, (base - log_p).clamp_min(0), per_nat, fit.to_dist)[0])
        screw.submit(head | {"what": "metrics", "rule": f"soft neighborhood T={t:g}"}, scores, fit.config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of MVTec AD, with screw in it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--weights", help="state dict of lite0 under timm's names, where its package is not installed")
    parser.add_argument("--share", type=float, default=1.0, help="of the training images that the MLP sees")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no run later than this")
    parser.add_argument("--set", action="append", default=[], help="setting, as image_crop=480")
    parser.add_argument("--processes", type=int, default=8, help="for metrics")
    given = parser.parse_args()
    began = time.perf_counter()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.backends.cudnn.allow_tf32 = False
    changes = PNIConfig.parse_overrides(given.set) | ({"weights": given.weights} if given.weights else {})
    base = SCREW.replace(**changes)
    screw = Screw(given, base)
    file = given.out / "results.jsonl"
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.is_file() else []
    done = {row["run"] for row in rows if row["what"] == "done"}
    name = torch.cuda.get_device_name() if "cuda" in given.device else "CPU"
    print(f"{name}: features {time.perf_counter() - began:.0f} s", flush=True)
    fits: dict[Any, Fitted] = {}
    for run, change in RUNS.items():
        if run in done or time.perf_counter() - began > given.seconds:
            continue
        config, head = base.replace(**change), {"run": run}
        key = config.border, config.seed
        if key not in fits:
            fits = {key: Fitted(screw, config)}
        fit = fits[key]
        fit.config = config
        n = len(screw.train)
        kept = list(range(n)) if given.share == 1 else sorted(range(0, n, round(1 / given.share)))
        away = [i for i in kept if i % 10 == 5] if run == "held_out" else []
        kept = [i for i in kept if i not in away]
        started = time.perf_counter()

        def look(epoch: int, mlp: NeighborhoodMLP, run: str = run, fit: Fitted = fit, away: list[int] = away) -> None:
            torch.set_float32_matmul_precision("highest")  # distances need all digits
            full = epoch in (1, 5, 10, fit.config.mlp_epochs)
            row = {"run": run, "epoch": epoch}
            if run == "main" or epoch == fit.config.mlp_epochs:
                examine(screw, fit, mlp, row, full)
            if away and full:
                held_out(screw, fit, mlp, away, row)
            torch.set_float32_matmul_precision("high")

        torch.set_float32_matmul_precision("high")  # TF32 products on a GPU while the MLP trains
        features = screw.train if len(kept) == n else screw.train[kept]
        trained = train_neighborhood(
            features, fit.target[kept], fit.n_dist, config, device=given.device, after_epoch=look
        )
        torch.set_float32_matmul_precision("highest")
        seconds = time.perf_counter() - started
        losses = [round(row["loss"], 4) for row in trained.history]
        screw.collect()
        screw.say(head | {"what": "done", "device": name, "seconds": round(seconds, 1), "fit_s": round(fit.seconds, 1),
                          "n_emb": len(fit.vectors), "share": given.share, "losses": losses})  # fmt: skip
    screw.pool.shutdown()


if __name__ == "__main__":
    main()
