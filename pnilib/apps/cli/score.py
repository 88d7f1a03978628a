"""`pni score`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pnilib.apps.cli.options import AsJson, Device, Out, Progress, Refined, device_name, emit
from pnilib.errors import PNIError

if TYPE_CHECKING:
    from pnilib.apps.batch import Scores

__all__ = ["model_folder", "report_scores", "score"]


def score(
    run: Annotated[Path, typer.Argument(help="OUT/<category> of `pni fit`.")],
    images: Annotated[list[Path], typer.Argument(help="Folders of new images, or images.")],
    out: Out,
    refined: Refined = False,
    device: Device = "auto",
    progress: Progress = True,
    as_json: AsJson = False,
) -> None:
    """Score new images: OUT/scores.csv, and a heat map of each on one colour scale.  Resumes.

    An image that cannot be read has its reason in column `problem`; status 1 when no image could be scored.
    """
    from pnilib.apps.batch import score_images
    from pnilib.detector.pni import PNI
    from pnilib.store.files import write_json

    folder = model_folder(run)
    model = PNI.load(folder, device_name(device))
    scores = score_images(model, images, out, refined=refined, progress=progress)
    write_json(
        out / "score.json",  # for `pni explore`
        {"model": str(folder.resolve()), "images": str(scores.folder.resolve()), "refined": refined},
    )
    report_scores(scores, out, as_json)


def report_scores(scores: "Scores", out: Path, as_json: bool) -> None:
    """The highest scores, what was found, and status 1 when nothing was scored."""
    table = scores.table
    lost = table["problem"].dropna()
    if as_json:
        emit(table.to_dict("records"))
    elif scores.n_scored:
        columns = ["image", "score", "defective", *(["problem"] if len(lost) else [])]
        typer.echo(table[columns].sort_values("score", ascending=False, kind="stable").head(10).to_string(index=False))
    for note in scores.notes:
        typer.echo(note, err=as_json)
    last = f"{scores.n_scored} of {len(table)} images scored -> {out / 'scores.csv'}, heat maps in {out / 'heatmaps'}"
    if len(lost):
        more = ", and so on in column `problem`" if len(lost) > 1 else ""
        last += f"; {len(lost)} could not be read: {lost.iloc[0]}{more}"
    typer.echo(last, err=as_json or not scores.n_scored)
    raise typer.Exit(0 if scores.n_scored else 1)


def model_folder(run: Path, kind: str = "pni") -> Path:
    """The model's own folder, the one of its category, or that of a run's only category."""
    from pnilib.detector.runs import require_kind, run_categories

    if (run / "manifest.json").exists():
        return run
    if (run / "model").exists():
        require_kind(run, kind)
        return run / "model"
    found = run_categories(run, kind=kind)
    if len(found) > 1:
        raise PNIError(f"{run}: holds several models: give one of them, {', '.join(str(folder) for folder in found)}")
    typer.echo(f"{run}: its one model, {found[0].name}, scores", err=True)
    return found[0] / "model"
