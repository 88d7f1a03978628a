"""`pni data`: make or fetch data sets, and check them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pnilib.apps.cli.options import (
    AsJson,
    Categories,
    DatasetName,
    Options,
    Root,
    Set,
    build_config,
    chosen_categories,
    emit,
    parse_options,
)
from pnilib.data.sources import SOURCES

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Make the demo data, fetch a data set, or check one.")


@app.command()
def demo(
    root: Root = Path("data/demo"),
    category: Categories = None,
    n_train: Annotated[int, typer.Option(help="Faultless training images a category.")] = 40,
    n_good: Annotated[int, typer.Option(help="Faultless test images a category.")] = 15,
    n_per_defect: Annotated[int, typer.Option(help="Test images of each defect.")] = 6,
    size: Annotated[int, typer.Option(help="Side of the images, px.")] = 256,
    seed: Annotated[int, typer.Option(help="Another seed draws other images.")] = 0,
) -> None:
    """Draw the demo data: procedural, MVTec-shaped, with exact masks; seconds."""
    from pnilib.demo import CATEGORIES, make_demo

    make_demo(
        root,
        categories=category or None,
        n_train=n_train,
        n_good=n_good,
        n_per_defect=n_per_defect,
        size=size,
        seed=seed,
    )
    typer.echo(f"{root}: demo data ready: {', '.join(category or CATEGORIES)}")


def _fetcher(name: str) -> Any:
    source = SOURCES[name]

    def fetch(
        root: Root = Path(f"data/{name}"),
        archive: Annotated[Path | None, typer.Option(help="An archive downloaded by hand.")] = None,
        url: Annotated[str | None, typer.Option(help="Another link than the publisher's.")] = None,
        sha256: Annotated[str | None, typer.Option(help="The archive must have this checksum.")] = None,
    ) -> None:
        from pnilib.data import prepare_dataset

        place = prepare_dataset(name, root, archive=archive, url=url, sha256=sha256)
        typer.echo(f"{place}: {source.title} ready")

    fetch.__doc__ = (
        f"{source.title}, {source.licence}. "
        + (
            "Downloads, resumes, verifies and unpacks."
            if source.url
            else "Its terms must be accepted on its page first:"
        )
        + f" {source.page}"
    )
    return fetch


for _name in SOURCES:
    app.command(_name)(_fetcher(_name))


@app.command()
def check(
    dataset: DatasetName,
    root: Root,
    category: Categories = None,
    option: Options = None,
    set_: Set = None,
    as_json: AsJson = False,
) -> None:
    """Report every defect of a data set at once; changes nothing.  Status 1 when there is any.

    --set: the pre-processing that images and masks are to survive, as bit_depth=12 or image_crop=512.
    """
    from pnilib.data import check_dataset, load_dataset

    geometry = build_config("small", set_, None).geometry
    found: dict[str, Any] = {}
    for name in chosen_categories(dataset, root, category):
        data = load_dataset(dataset, root, name, **parse_options(option))
        findings = check_dataset(data, progress=not as_json, geometry=geometry)
        found[name] = [vars(finding) for finding in findings]
        if not as_json:
            typer.echo(f"{name}: {data.summary()}; findings: {len(findings)}")
            for line in [*findings, *data.notes]:
                typer.echo(f"  {line}")
    if as_json:
        emit(found)
    raise typer.Exit(1 if any(found.values()) else 0)
