"""Scoring one 480 px image by setting E at the paper's size: memory and time against writing everything out.

    python benchmarks/bench_scoring.py            d = 1,024, |C_emb| = 7,500, |C_dist| = 2,048, 205 M weights
    python benchmarks/bench_scoring.py --tiny     seconds instead of minutes
    python benchmarks/bench_scoring.py --json     one JSON object

Weights, coreset and histogram are random (time and memory do not depend on them; the features are those of a
random image).  The competitor is the obvious way, as the release does it but in float32: gather the neighborhoods of
all 3,600 cells into one array [cells, 80 d] (the release holds it in float64), run the network on it, and sort
the whole distance matrix to walk to the first open gate.  Both score the same features and must agree.
Each runs in a process of its own; memory is the peak resident growth beyond the loaded model.
"""

import argparse
import json
import subprocess
import sys
from typing import Any

import numpy as np
import torch
from bench_coreset import Peak, timed

from pnilib.config import PNIConfig
from pnilib.coreset import Coreset
from pnilib.detector.inference import score_image
from pnilib.detector.pni import PNI
from pnilib.neighborhood import NeighborhoodMLP, gather_neighbors, log_probability
from pnilib.position import PositionHistogram
from pnilib.scoring import gate, mean_probability, tau


def config_of(tiny: bool) -> PNIConfig:
    """The paper's sizes; random weights, since none of them need be good ones."""
    config = PNIConfig(weights="random", calibration_images=0)
    if tiny:
        return config.replace(backbone="resnet18", dim=64, dist_size=64, mlp_layers=3, mlp_width=64, image_resize=128,
                              image_crop=128)  # fmt: skip
    return config


def model_of(config: PNIConfig, n_emb: int, seed: int = 0) -> PNI:
    """A model as large as a fitted one; its coreset are features of noise images, its network is untrained."""
    model = PNI(config)
    rng = np.random.default_rng(seed)
    (gh, gw), d, n_dist = model.embedder.grid, model.embedder.dim, config.dist_size
    images = torch.from_numpy(rng.random((2, 3, config.image_crop, config.image_crop), dtype=np.float32))
    seen = model.embedder.embed(images).reshape(-1, d)
    rows = torch.from_numpy(rng.integers(len(seen), size=n_emb))
    noise = torch.from_numpy(rng.standard_normal((n_emb, d), dtype=np.float32))
    embedding = seen[rows] + 0.3 * seen.std(0) * noise
    model.coreset = Coreset(embedding, n_dist, torch.from_numpy(rng.integers(n_dist, size=n_emb)), rows // (gh * gw),
                            rows % (gh * gw), torch.zeros(n_emb, dtype=torch.float64))  # fmt: skip
    counts = rng.integers(0, 300, size=(gh, gw, n_dist)) * (rng.random((gh, gw, n_dist)) < 0.02)
    model.position = PositionHistogram(counts.astype(np.uint16))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model.mlp = NeighborhoodMLP(d, n_dist, config).eval()
    return model


@torch.no_grad()
def literal(model: PNI, features: torch.Tensor) -> torch.Tensor:
    """S(x) of all cells, everything written out."""
    assert model.coreset is not None and model.position is not None and model.mlp is not None
    config, coreset = model.config, model.coreset
    flat = features.flatten(0, 1)
    neighbors = gather_neighbors(features[None], torch.arange(len(flat)), neighbor_offsets(config.patch), config.nb_pad)
    p_neighborhood = log_probability(model.mlp(neighbors), config.temperature).exp()
    probability = mean_probability(p_neighborhood, model.position.probability(slice(None)))
    is_open = gate(probability, tau(len(coreset.embedding)))[:, coreset.emb_to_dist]
    ordered, order = torch.cdist(flat, coreset.embedding).sort(dim=1)
    first = is_open.gather(1, order).float().argmax(1, keepdim=True)
    return ordered.gather(1, first)[:, 0]


def measure(which: str, tiny: bool, n_emb: int, threads: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    model = model_of(config_of(tiny), n_emb)
    assert model.coreset is not None and model.position is not None and model.mlp is not None
    side = model.config.image_crop
    image = torch.rand(3, side, side, generator=torch.Generator().manual_seed(1))
    features = model.embedder.embed(image[None])[0]
    report: dict[str, Any] = {"cells": features.shape[0] * features.shape[1]}
    if which == "whole":  # backbone, distributions, gates, map
        with Peak() as peak:
            report["s"], report["cpu_s"], _ = timed(lambda: model.predict(image[None]))
    else:
        with torch.no_grad(), Peak() as peak:
            report["s"], report["cpu_s"], found = timed(
                lambda: (
                    literal(model, features)
                    if which == "literal"
                    else score_image(features, model.coreset, model.position, model.mlp, {"": model.config})[""][
                        0
                    ].score
                )
            )
        report["score"] = found.tolist()
    parameters = sum(p.numel() for p in model.mlp.parameters())
    return report | {"extra_gb": peak.growth / 1e9, "mlp_parameters": parameters, "mlp_gb": parameters * 4 / 1e9}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--n-emb", type=int, help="|C_emb|; 7,500, or 500 with --tiny")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--only", nargs="+", choices=["ours", "literal", "whole"], default=["ours", "literal", "whole"])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    n_emb = options.n_emb or (500 if options.tiny else 7500)
    if options.measure:
        print(json.dumps(measure(options.measure, options.tiny, n_emb, options.threads)))
        return
    report: dict[str, Any] = {"n_emb": n_emb, "threads": options.threads}
    for which in options.only:
        command = [sys.executable, __file__, "--measure", which, "--n-emb", str(n_emb), "--threads",
                   str(options.threads), *["--tiny"][: options.tiny]]  # fmt: skip
        report[which] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    if "ours" in report and "literal" in report:
        ours, other = (np.array(report[which].pop("score")) for which in ("ours", "literal"))
        report["largest_relative_difference"] = float((np.abs(ours - other) / other.max()).max())
        report["ratio"] = report["literal"]["s"] / report["ours"]["s"]
        report["cpu_ratio"] = report["literal"]["cpu_s"] / report["ours"]["cpu_s"]
    first = report[options.only[0]]
    config = config_of(options.tiny)
    inputs = (config.patch**2 - 1) * config.dim
    report["released_gather_gb"] = first["cells"] * inputs * 8 / 1e9
    if options.json:
        print(json.dumps(report))
        return
    print(f"{first['cells']} cells, d = {config.dim}, |C_emb| = {n_emb}, {options.threads} thread(s); ", end="")
    print(f"MLP of {first['mlp_parameters'] / 1e6:.0f} M parameters = {first['mlp_gb']:.2f} GB, not counted below\n")
    print("| what | seconds | processor seconds | extra memory, GB |\n|---|---:|---:|---:|")
    names = {"ours": "scores, ours", "literal": "scores, written out", "whole": "ours, from image to map"}
    for which in options.only:
        r = report[which]
        print(f"| {names[which]} | {r['s']:.1f} | {r['cpu_s']:.1f} | {r['extra_gb']:.2f} |")
    print(f"\nthe release's array [{first['cells']}, {inputs}] in float64: {report['released_gather_gb']:.2f} GB")
    if "ratio" in report:
        print(f"ratio written out / ours: {report['ratio']:.2f} (processor time {report['cpu_ratio']:.2f}); ", end="")
        print(f"largest difference of scores: {report['largest_relative_difference']:.0e} of the largest")


if __name__ == "__main__":
    main()
