"""`pni explore`: why was this sample misclassified?"""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from pnilib.apps.cli.options import Device, Progress, device_name
from pnilib.errors import PNIError

__all__ = ["explore"]


def explore(
    run: Annotated[
        Path,
        typer.Argument(
            help="The --store of `pni reproduce`, any folder in it, or the --out of `pni fit` or `pni score`."
        ),
    ],
    data: Annotated[
        Path | None, typer.Option("--data", help="Where the run's data set, or the scored images, lie now, if moved.")
    ] = None,
    other: Annotated[
        Path | None, typer.Option("--compare", help="A second run of the same test images, to compare with.")
    ] = None,
    notes: Annotated[Path | None, typer.Option(help="CSV of your notes. Default: notes.csv in RUN.")] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but 127.0.0.1 lets other machines in, who know the token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")] = True,
    device: Device = "auto",
    progress: Progress = True,
) -> None:
    """Explore a run on a page: move the threshold, find false positives and negatives, ask a pixel why.

    The page shows what the run kept; the images of a `pni fit` or `pni score` folder are scored first, once, under each
    setting. It asks no other server for anything. Ctrl+C ends it.
    In a notebook: `from pnilib.apps.explore.widgets import explore; explore("RUN")`.
    """
    from pnilib.apps.explore.prepare import prepare
    from pnilib.apps.explore.run import open_exploration
    from pnilib.apps.explore.serve import serve

    place = device_name(device)
    for one in (run, other):
        if one is not None:
            prepare(one, device=place, data=data, progress=progress)
    opened = open_exploration(run, data=data, other=other)  # faults show here, not on the page
    for key, category in opened.categories.items():
        with suppress(PNIError):  # the page says which pictures are not there
            for note in category.data.notes:
                typer.echo(f"{key}: {note}", err=True)
    for line in opened.unfinished[:5]:
        typer.echo(f"not finished, and left out: {line}", err=True)
    more = len(opened.unfinished) - 5
    if more > 0:
        typer.echo(f"... and {more} more", err=True)
    serve(run, data=data, other=other, notes=notes, host=host, port=port, browser=browser, say=typer.echo)
