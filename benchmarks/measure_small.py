"""What profile `small` measures on the demo data and on real parts: one row a data set, split, seed and rule.

    python benchmarks/measure_small.py demo --root data/demo --seeds 3 --out results/readme/small.csv
    python benchmarks/measure_small.py mtd --root DATA/mtd --option split=tile --seeds 5 --out ...    # a split a seed
    python benchmarks/measure_small.py mvtec --root DATA/mvtec --set image_resize=512 --set image_crop=480 --out ...

Rules, all of one fit: A (plain nearest neighbor), position (the gate of eq. 5), soft (the veto alone, without the
level), small (the default: veto and level).  I-AUROC with its 95 % bootstrap interval over test images.  Rows that the
file has already are not measured again: a killed run goes on.
"""

import argparse
import csv
import time
from pathlib import Path
from typing import Any

from pnilib import PNI, PNIConfig, evaluate, load_dataset
from pnilib.apps.cli.options import parse_options
from pnilib.data import list_categories
from pnilib.store.files import write_csv

COLUMNS = (
    "data", "options", "category", "changes", "backbone", "image", "seed", "rule", "n_train", "n_test", "n_emb",
    "alpha", "i_auroc", "i_low", "i_high", "p_auroc", "aupro_30", "p_f1_max", "normal_fp", "normal_fn", "fit_s",
    "score_s",
)  # fmt: skip
RULES: dict[str, dict[str, Any]] = {
    "A": dict(setting="A"),
    "position": dict(gate="hard"),
    "soft": dict(level_power=0.0),
    "small": {},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="layout: demo, mtd, mvtec, ...")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--category", action="append", help="default: all; repeatable")
    parser.add_argument("--option", action="append", default=[], help="of the layout, as split=tile")
    parser.add_argument("--set", action="append", default=[], dest="changes", help="setting, as image_crop=480")
    parser.add_argument("--seeds", type=int, default=1, help="0, 1, ...; with split=tile each has its own split")
    parser.add_argument("--out", type=Path, default=Path("results/readme/small.csv"))
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    options = parse_options(given.option)
    config = PNIConfig.profile("small").replace(**PNIConfig.parse_overrides(given.changes))
    for category in given.category or list_categories(given.dataset, given.root):
        for seed in range(given.seeds):
            key = {
                "data": given.dataset, "options": " ".join(o for o in given.option if not o.startswith("train_list")),
                "category": category, "changes": " ".join(given.changes), "seed": str(seed),
            }  # fmt: skip
            if any(all(row[k] == v for k, v in key.items()) for row in _read(given.out)):
                continue
            by_split = {"seed": seed} if options.get("split") == "tile" else {}
            data = load_dataset(given.dataset, given.root, category, **options, **by_split)
            began = time.perf_counter()
            model = PNI(config.replace(seed=seed), given.device).fit(data.train, progress=True)
            fitted = time.perf_counter()
            variants = {name: model.config.replace(**change) for name, change in RULES.items()}
            found = model.predict_variants(data.test, variants, progress=True)
            scored = time.perf_counter()
            rows = []
            for rule, prediction in found.items():
                result = evaluate(prediction, data.test)
                percent = {k: round(100 * result.metrics[k], 3) for k in ("i_auroc", "p_auroc", "aupro_30", "p_f1_max")}
                low, high = result.interval[:2]
                rows.append(
                    key | percent | {
                        "rule": rule, "backbone": config.backbone,
                        "image": f"{config.image_resize}/{config.image_crop}",
                        "n_train": len(data.train), "n_test": len(data.test),
                        "n_emb": len(model.coreset.embedding) if model.coreset else 0,
                        "alpha": f"{model.veto.alpha:.3g}" if model.veto else "",
                        "i_low": round(100 * low, 2), "i_high": round(100 * high, 2),
                        "normal_fp": result.metrics["normal_fp"], "normal_fn": result.metrics["normal_fn"],
                        "fit_s": round(fitted - began, 1), "score_s": round(scored - fitted, 1),
                    }
                )  # fmt: skip
                print(category, seed, rule, percent, flush=True)
            write_csv(given.out, [*_read(given.out), *rows], COLUMNS)


def _read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


if __name__ == "__main__":
    main()
