"""SegAD beside its base maps over ten seeds: by number of bad parts, segmentation and variant, one CSV.

    python benchmarks/segad_protocols.py RUN [RUN ...] --bad-parts 0,2,5,10,20 --segments whole,foreground --out FILE

RUN: OUT/<category> of `pni fit ... --option hold_out=0.1`.  Segments: as `pni segad`, and `parts`, the demo data's own.
`--good ROOT` takes ROOT/<category>/train/good in place of the held-out images (demo data of another seed, say).
`--one-class` adds the protocol with generated defects.  Maps are kept in CACHE, so that another call is quick.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from pnilib.detector.runs import open_data
from pnilib.segad.generated import generate_defects
from pnilib.segad.model import SegAD
from pnilib.segad.opening import open_maps, open_segmentation, with_good
from pnilib.segad.protocols import SEEDS, run_protocol, summary
from pnilib.segad.segments import check_segments
from pnilib.store.files import atomic_write


def rows_of(run: Path, given: argparse.Namespace) -> list[pd.DataFrame]:
    """One table a segmentation, variant and number of bad parts."""
    rules = given.maps.split(",") if given.maps else None
    data, found = open_data(run), []
    more = None if given.good is None else given.good / data.category / "train/good"
    opened = with_good(open_maps([run], given.cache, rules=rules), more)
    labels = opened.test.samples["label"].to_numpy(np.int64)
    geometry = opened.sources[0].geometry
    for name in given.segments.split(","):
        where = str(data.root / data.category / "segmentation") if name == "parts" else name
        segmentation = open_segmentation(where, opened)
        for note in check_segments(
            [segmentation.labels(opened.good, i, geometry) for i in range(len(opened.good))], segmentation.names
        ):
            print(f"{data.category}, {name}: {note}")
        model = SegAD(opened.sources, segmentation)
        good, test = model.measure(opened.good), model.measure(opened.test)
        about = dict(dataset=data.name, category=data.category, segments=name, good_parts=len(good))
        for variant in given.variants.split(","):
            for n_bad in map(int, given.bad_parts.split(",")):
                table = run_protocol(model.columns, good, test, labels, n_bad=n_bad, variant=variant)
                found.append(table.assign(**about, protocol="drawn", variant=variant))
                print(data.category, name, variant, n_bad, summary(table).to_string(index=False), sep="\n")
        if given.one_class:
            for seed in SEEDS[: given.one_class]:
                place = given.cache / "generated" / data.category / name.replace(":", "-") / str(seed)
                bad = model.measure(generate_defects(opened.good, segmentation, geometry, place, seed=seed))
                table = run_protocol(model.columns, good, test, labels, n_bad=len(bad), bad=bad, seeds=[seed])
                found.append(table.assign(**about, protocol="one-class", variant="BRF"))
            made = pd.concat(found[-given.one_class :])
            print(data.category, name, "one-class", summary(made).to_string(index=False), sep="\n")
    return found


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("runs", nargs="+", type=Path)
    words.add_argument("--maps", default="")
    words.add_argument("--good", type=Path)
    words.add_argument("--bad-parts", default="0,2,5,10,20")
    words.add_argument("--segments", default="whole,foreground")
    words.add_argument("--variants", default="BRF")
    words.add_argument("--one-class", type=int, default=0, help="seeds of the one-class protocol; 0: none")
    words.add_argument("--cache", type=Path, default=Path("runs/segad-maps"))
    words.add_argument("--out", type=Path, required=True)
    given = words.parse_args()
    table = pd.concat([one for run in given.runs for one in rows_of(run, given)], ignore_index=True)
    same = ["category", "protocol", "n_bad", "seed", "method"]  # a base map's rows do not depend on segments or variant
    table = table[(table["method"] == "SegAD") | ~table.duplicated(same)]
    first = ["dataset", "category", "protocol", "segments", "variant", "good_parts"]
    with atomic_write(given.out) as handle:
        table[[*first, *table.columns.difference(first, sort=False)]].round(6).to_csv(
            handle, index=False, lineterminator="\n"
        )


if __name__ == "__main__":
    main()
