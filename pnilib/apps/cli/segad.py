"""`pni segad fit | score | evaluate`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pnilib.apps.cli.options import AsJson, Device, Out, Progress, device_name, emit
from pnilib.errors import PNIError

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    help="""A supervised decision on anomaly maps, from a handful of bad parts (SegAD).

Fit detectors with some normal images held out:
pni fit -d mvtec -r DATA -c screw --set setting=E --option hold_out=0.1 -o runs/screw

Learn from bad parts:  pni segad fit runs/screw --bad BAD_PARTS -o segad/screw

Decide on new ones:  pni segad score segad/screw NEW_IMAGES -o segad/new

What it is worth, ten seeds of a published protocol:  pni segad evaluate runs/screw --protocol mvtec -o segad/mvtec""",
)

Maps = Annotated[
    list[Path],
    typer.Argument(
        help="Base maps, one place or several at once: OUT/<category> of `pni fit`, or a folder of the published "
        "layout (anomaly_maps/{good,bad}/<name>.npy, df_training.csv, df_test.csv)."
    ),
]
Rules = Annotated[
    str | None,
    typer.Option("--maps", help="Which maps of a PNI run, as A,position,E,refined.  Default: all it has but refined."),
]
Segments = Annotated[
    str,
    typer.Option(
        "--segments",
        help="whole; foreground (and background); clusters:K (k-means of patch features); or a folder of label maps "
        "(.npy or PNG, named as the images).",
    ),
]
Variant = Annotated[str, typer.Option(help="BRF, the paper's boosted random forest; RF or BT of its ablation.")]
Good = Annotated[
    Path | None, typer.Option("--good", help="Folder of good parts, in place of those that the fit held out.")
]
Bad = Annotated[Path | None, typer.Option("--bad", help="Folder of bad parts to learn from.")]
Root = Annotated[Path | None, typer.Option("--root", "-r", help="Where the data set is now, if it moved.")]


@app.command()
def fit(
    maps: Maps,
    out: Out,
    bad: Bad = None,
    bad_parts: Annotated[
        int | None, typer.Option("--bad-parts", help="Instead of --bad: so many of the data set's test images.")
    ] = None,
    generate: Annotated[
        bool, typer.Option("--generate", help="Instead of --bad: a generated defect on each good part (one-class).")
    ] = False,
    good: Good = None,
    rules: Rules = None,
    segments: Segments = "foreground",
    variant: Variant = "BRF",
    fpr: Annotated[float, typer.Option(help="Share of good parts that may be called bad.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Seed of the draw and of the trees.")] = 333,
    root: Root = None,
    device: Device = "auto",
    progress: Progress = True,
) -> None:
    """Learn from good and bad parts: OUT/segad.json, OUT/forest.json; base maps are kept in OUT/maps.  Resumes.

    Where images are few, thresholds promise little: a note says how little.
    """
    from pnilib.data import Split
    from pnilib.segad.generated import generate_defects
    from pnilib.segad.model import SegAD
    from pnilib.segad.opening import folder_split, open_maps, open_segmentation, with_good
    from pnilib.segad.protocols import draw_bad
    from pnilib.store.locks import lock_folder

    if sum((bad is not None, bad_parts is not None, generate)) != 1:
        raise PNIError("say what bad parts to learn from: one of --bad FOLDER, --bad-parts N, --generate")
    opened = with_good(open_maps(maps, out / "maps", rules=_split(rules), device=device_name(device), root=root), good)
    with lock_folder(out):
        segmentation = open_segmentation(segments, opened, seed=seed)
        _say_segments(opened, segmentation)
        geometry = opened.sources[0].geometry
        if bad is not None:
            learnt = folder_split(bad, 1)
        elif generate:
            learnt = generate_defects(opened.good, segmentation, geometry, out / "generated", seed=seed)
        else:
            assert bad_parts is not None
            drawn, _ = draw_bad(opened.test.samples["label"].to_numpy(), bad_parts, seed)
            learnt = Split(opened.test.samples.iloc[drawn], opened.test.root)
        model = SegAD(opened.sources, segmentation, variant=variant, seed=seed)
        model.fit(opened.good, learnt, fpr=fpr, progress=progress)
        drawn_paths = [str(path) for path in learnt.samples["image_path"]]
        model.save(out, opened.facts | {"bad": drawn_paths})
    limits = model.thresholds
    typer.echo(
        f"{len(opened.good)} good and {len(learnt)} bad parts, {len(model.columns)} statistics -> {out}\n"
        f"thresholds from scores out of fold: {limits.tpr95:.4g} finds 95 % of the bad parts, "
        f"{limits.false_alarms:.4g} gives {100 * fpr:.3g} % false alarms"
    )
    if limits.note:
        typer.echo(limits.note)


@app.command()
def score(
    model: Annotated[Path, typer.Argument(help="OUT of `pni segad fit`.")],
    images: Annotated[list[Path], typer.Argument(help="Folders of new images, or images.")],
    out: Out,
    pictures: Annotated[int, typer.Option(help="So many of the worst are drawn with the reasons.")] = 8,
    root: Root = None,
    device: Device = "auto",
    progress: Progress = True,
    as_json: AsJson = False,
) -> None:
    """Decide on new images: OUT/scores.csv with the reasons, OUT/why.png with them drawn on the images.  Resumes.

    An image that cannot be read has its reason in column `problem`; status 1 when no image could be scored.
    """
    import pandas as pd

    from pnilib.segad.opening import folder_split, load_model, readable
    from pnilib.store.files import atomic_write
    from pnilib.store.locks import lock_folder, mark_output

    found, _ = load_model(model, out / "maps", device=device_name(device), root=root)
    split = folder_split(images, -1)
    with lock_folder(out):
        mark_output(out)
        split, lost = readable(split, found.sources[0])
        if not len(split):
            typer.echo(f"no image could be scored: {lost.iloc[0]['problem']}", err=True)
            raise typer.Exit(1)
        table = found.score(split, progress=progress).sort_values("score", ascending=False, kind="stable")
        chosen = list(table.index[:pictures])
        if len(lost):
            table = pd.concat([table, lost])
        with atomic_write(out / "scores.csv") as handle:
            table.to_csv(handle, index=False, lineterminator="\n")
        if pictures > 0:
            _draw_why(found, split, chosen, out / "why.png")
    if as_json:
        emit(table.to_dict("records"))
        return
    typer.echo(table.head(10).to_string(index=False))
    if found.thresholds.note:
        typer.echo(found.thresholds.note)
    last = f"{len(split)} of {len(table)} images scored -> {out / 'scores.csv'}"
    last += f", {out / 'why.png'}" if pictures else ""
    typer.echo(last + (f"; {len(lost)} could not be read: {lost.iloc[0]['problem']}" if len(lost) else ""))


@app.command()
def evaluate(
    maps: Maps,
    out: Out,
    protocol: Annotated[
        str, typer.Option(help="visa (10 bad parts), mvtec (20), vad-high (1,000), vad-low (100), one-class (none).")
    ] = "visa",
    bad_parts: Annotated[int | None, typer.Option("--bad-parts", help="Another number of bad parts.")] = None,
    n_seeds: Annotated[int, typer.Option("--seeds", help="So many of the ten published seeds.")] = 10,
    bad: Bad = None,
    good: Good = None,
    rules: Rules = None,
    segments: Segments = "foreground",
    variant: Variant = "BRF",
    root: Root = None,
    device: Device = "auto",
    progress: Progress = True,
    as_json: AsJson = False,
) -> None:
    """SegAD beside each of its base maps on a protocol's test images, mean ± sd over seeds: OUT/seeds.csv, summary.csv.

    Cl. AUROC, and FPR@95TPR: the share of good parts that score at least as the 5 % quantile of the bad test parts.
    """
    import numpy as np

    from pnilib.segad.generated import generate_defects
    from pnilib.segad.model import SegAD
    from pnilib.segad.opening import folder_split, open_maps, open_segmentation, with_good
    from pnilib.segad.protocols import PROTOCOLS, SEEDS, run_protocol, summary
    from pnilib.store.files import atomic_write, write_json
    from pnilib.store.locks import lock_folder

    if protocol not in PROTOCOLS:
        raise PNIError(f"--protocol {protocol}: unknown: choose one of {', '.join(PROTOCOLS)}")
    if not 1 <= n_seeds <= len(SEEDS):
        raise PNIError(f"--seeds {n_seeds}: give 1 to {len(SEEDS)}")
    opened = with_good(open_maps(maps, out / "maps", rules=_split(rules), device=device_name(device), root=root), good)
    with lock_folder(out):
        segmentation = open_segmentation(segments, opened)
        _say_segments(opened, segmentation)
        model = SegAD(opened.sources, segmentation, variant=variant)
        n_bad, pool = PROTOCOLS[protocol].n_bad if bad_parts is None else bad_parts, None
        rows_good = model.measure(opened.good, progress=progress)
        if protocol == "one-class":
            made = [
                generate_defects(
                    opened.good, segmentation, opened.sources[0].geometry, out / "generated" / str(seed), seed=seed
                )
                for seed in SEEDS[:n_seeds]
            ]
            pools = [model.measure(one, progress=progress) for one in made]
        elif bad is not None:
            pool = model.measure(folder_split(bad, 1), progress=progress)
        labels = opened.test.samples["label"].to_numpy(np.int64)
        rows_test = model.measure(opened.test, progress=progress)
        import pandas as pd

        def run(seeds: Any, own: Any, count: int) -> Any:
            return run_protocol(
                model.columns, rows_good, rows_test, labels, n_bad=count, bad=own, variant=variant, seeds=seeds
            )

        if protocol == "one-class":
            found = pd.concat([run((s,), own, len(own)) for s, own in zip(SEEDS[:n_seeds], pools, strict=True)])
        else:
            found = run(SEEDS[:n_seeds], pool, n_bad)
        short = summary(found)
        for name, table in (("seeds", found), ("summary", short)):
            with atomic_write(out / f"{name}.csv") as handle:
                table.to_csv(handle, index=False, lineterminator="\n")
        settings = {"protocol": protocol, "segments": segmentation.facts() | {"names": list(segmentation.names)}}
        write_json(out / "evaluate.json", opened.facts | settings | {"variant": variant, "good": len(rows_good)})
    if as_json:
        emit(found.to_dict("records"))
    else:
        typer.echo(short.to_string(index=False))
        typer.echo(f"{len(rows_good)} good parts to learn from; sd over seeds -> {out / 'seeds.csv'}")


def _split(rules: str | None) -> list[str] | None:
    return [name.strip() for name in rules.split(",")] if rules else None


def _draw_why(model: Any, split: Any, chosen: list[int], file: Path) -> None:
    """The reasons of some images, drawn on them."""
    from pnilib.data import Split
    from pnilib.plots.labels import file_label
    from pnilib.plots.segad import Why, why_figure
    from pnilib.store.files import atomic_write

    own = Split(split.samples.iloc[chosen], split.root)
    rows = model.measure(own)
    source, scores = model.sources[0], model.forest.scores(rows)
    parts = []
    for i, (maps, reasons) in enumerate(zip(source.maps(own), model.explain(rows), strict=True)):
        name = f"{file_label(own.samples['image_path'].iloc[i])}: score {scores[i]:.2f}"
        image, labels = own.image(i, source.geometry), model.segmentation.labels(own, i, source.geometry)
        parts.append(Why(image, maps[0], labels, model.segmentation.names, reasons, name))
    figure = why_figure(parts, source.names[0])
    with atomic_write(file, "wb") as handle:
        figure.savefig(handle, format="png", dpi=110)


def _say_segments(opened: Any, segmentation: Any) -> None:
    from pnilib.segad.segments import check_segments

    geometry = opened.sources[0].geometry
    first = range(min(len(opened.good), 50))
    for note in check_segments([segmentation.labels(opened.good, i, geometry) for i in first], segmentation.names):
        typer.echo(f"segment {note}" if not note.startswith("segment") else note, err=True)
