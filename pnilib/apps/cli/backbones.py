"""`pni backbones`."""

from typing import Any

import typer

from pnilib.apps.cli.options import AsJson, Set, build_config, emit

__all__ = ["backbones"]


def backbones(
    set_: Set = None,
    as_json: AsJson = False,
) -> None:
    """The usual networks: weights at hand or not, levels, channels, cost, licence; any other of timm's works by name.

    Cost and levels are of the image size in --set (as image_resize=256 image_crop=256; default 384), or the nearest
    that the network takes.  `pni fit --set backbone=NAME` uses one; `--set levels=...` chooses its levels.
    """
    from pnilib.features.catalogue import describe_backbones  # timm: seconds to import

    rows = describe_backbones(build_config("small", set_, None))
    if as_json:
        emit(rows)
        return
    header = ("name", "from", "weights", "image", "levels", "GFLOP", "licence")
    table = [header, *(tuple(str(row[name]) for name in header) for row in rows)]
    columns: list[Any] = list(zip(*(list(line) for line in table), strict=True))
    widths = [max(map(len, column)) for column in columns]
    for line in zip(*columns, strict=True):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    typer.echo("Any other of timm's works by its name. Measured quality: README, results/readme/small.csv.")
