"""`pni estimate --grid` against what units of work really take at the paper's size, in one run.

    python benchmarks/bench_estimate.py           some 25 minutes on one core, about 10 GB of memory
    python benchmarks/bench_estimate.py --tiny    the same steps at 64 px, seconds

The paper's profile whole: 480 px, WideResNet-101-2 (random weights), 1,024 channels, the MLP and the refinement network
as large as the paper's.  Only what is counted is small: images, epochs, iterations, and C_dist, for which so few images
have not 2,048 vectors.  The pool's maps are those of the same fit (`pool_maps=leave_out`): three more fits would tell
nothing new.  The images are the demo category `cable`, enlarged.  Every unit that settings A, B, E and PNI need is
estimated, then run; printed is estimated seconds / measured processor seconds for each kind of work.
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from pnilib.apps.estimate import estimate_plan
from pnilib.apps.reproduce.plan import Request, build_plan, sources_of
from pnilib.apps.reproduce.units import run_unit
from pnilib.demo import make_demo

COUNTED = {
    "dist_size": 32, "mlp_epochs": 1, "refine_iterations": 4, "pool_images": 8, "calibration_images": 2,
    "pool_maps": "leave_out",
}  # fmt: skip
TINY = {
    "image_resize": 64, "image_crop": 64, "dim": 32, "dist_size": 32, "emb_ratio": 0.2, "mlp_width": 32,
    "mlp_layers": 3, "mlp_batch": 128, "patch": 3,
}  # fmt: skip


def some_images(root: Path, n_train: int, n_test: int) -> None:
    """MVTec AD's form: the first `n_train` training images of `cable`, `n_test` normal and as many defective ones."""
    make_demo(root / "all", categories=["cable"], progress=False)
    place, kept = root / "all" / "cable", root / "mvtec" / "cable"
    kind = sorted(folder.name for folder in (place / "test").iterdir() if folder.name != "good")[0]
    for folder, n in (("train/good", n_train), ("test/good", n_test), (f"test/{kind}", n_test)):
        for file in sorted((place / folder).iterdir())[:n]:
            (kept / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, kept / folder / file.name)
            mask = place / "ground_truth" / kind / f"{file.stem}_mask.png"
            if folder == f"test/{kind}":
                (kept / "ground_truth" / kind).mkdir(parents=True, exist_ok=True)
                shutil.copy(mask, kept / "ground_truth" / kind / mask.name)


def compare(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a kind of work: its units, seconds estimated, processor seconds measured."""
    changes = COUNTED | (TINY if options.tiny else {}) | {"weights": "random", "refine_weights": "random"}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        some_images(root, options.n_train, options.n_test)
        sources = tuple(sources_of("mvtec", root / "mvtec"))
        request = Request("paper", {"mvtec": sources, "btad": (), "visa": ()}, (0,), (0,), changes)
        plan = build_plan(request, ["A", "B", "E", "PNI"], switches=False)
        began = time.perf_counter()
        expected = estimate_plan(plan, {sources[0]: (options.n_train, 2 * options.n_test)}, "cpu")
        print(f"estimated in {time.perf_counter() - began:.0f} s", flush=True)
        rows: dict[str, dict[str, Any]] = {}
        for unit in plan.units:
            began = time.process_time()
            if fault := run_unit(unit, root / "store", "cpu", options.threads):
                raise SystemExit(f"{unit.describe()}: {fault}")
            row = rows.setdefault(unit.kind, dict(kind=unit.kind, units=0, measured=0.0))
            row["units"] += 1
            row["measured"] += time.process_time() - began
            print(f"{unit.describe()}: {time.process_time() - began:.0f} s of processor time", flush=True)
        for kind, row in rows.items():
            row["estimated"] = sum(cost.seconds for (_, of), cost in expected.items() if of == kind)
        return list(rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-train", type=int, default=4, help="training images")
    parser.add_argument("--n-test", type=int, default=2, help="normal test images, and as many defective ones")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--tiny", action="store_true", help="everything small: do the steps work?")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = compare(options)
    rows.append(
        {"kind": "all", **{name: sum(row[name] for row in rows) for name in ("units", "measured", "estimated")}}
    )
    if options.json:
        print(json.dumps({"threads": options.threads, "rows": rows}))
        return
    print("| work | units | estimate / measured |\n|---|---:|---:|")
    for row in rows:
        print(f"| {row['kind']} | {row['units']} | {row['estimated'] / row['measured']:.2f} |")


if __name__ == "__main__":
    main()
