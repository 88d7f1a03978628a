"""Profile `small` on one core: what scoring an image costs beside the network's own time.

    python benchmarks/bench_small.py            # demo images, made in a temporary folder where --data is not given

The model is fitted on a demo category whose coreset is full; every image's processor time is measured in turn for the
network alone and for the whole prediction, and the medians are compared.  Both run in the same process on
the same images, so their ratio means something on a busy machine, too.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pnilib import PNI, PNIConfig, load_dataset
from pnilib.demo import make_demo


def median_ms(work: Callable[[int], object], n: int, rounds: int) -> float:
    """Median processor time of one call, ms; the first round warms up."""
    times = []
    for k in range(rounds + 1):
        for i in range(n):
            began = time.process_time()
            work(i)
            if k:
                times.append(time.process_time() - began)
    return 1e3 * float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the demo data; default: made anew")
    parser.add_argument("--category", default="tiles")
    parser.add_argument("--set", action="append", default=[], dest="changes", help="setting, as emb_max=2500")
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        root = given.data or Path(made) / "demo"
        make_demo(root, progress=False)
        data = load_dataset("demo", root, given.category)
        config = PNIConfig.profile("small").replace(**PNIConfig.parse_overrides(given.changes), calibration_images=0)
        model = PNI(config).fit(data.train)
        images = [data.test.image(i, config.geometry) for i in range(given.images)]
    assert model.coreset is not None
    network = median_ms(lambda i: model.embed(images[i]), len(images), given.rounds)
    whole = median_ms(lambda i: model.predict(images[i][None]), len(images), given.rounds)
    plain = model.with_config(setting="A")
    nearest = median_ms(lambda i: plain.predict(images[i][None]), len(images), given.rounds)
    found = {
        "image": config.image_crop, "vectors": len(model.coreset.embedding), "network_ms": round(network, 1),
        "predict_ms": round(whole, 1), "beside / network": round((whole - network) / network, 2),
        "setting A: beside / network": round((nearest - network) / network, 2),
    }  # fmt: skip
    print(json.dumps(found) if given.json else "\n".join(f"{name:<28} {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
