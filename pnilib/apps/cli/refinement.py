"""`pni refine`."""

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from pnilib.apps.cli.options import (
    AsJson,
    Categories,
    Device,
    Progress,
    Set,
    device_name,
    emit,
)
from pnilib.config import PNIConfig
from pnilib.errors import PNIError

__all__ = ["refine"]

_STAGES = ("defects", "refinement", "fusion")


def refine(
    run: Annotated[Path, typer.Argument(help="OUT of `pni fit`, or OUT/<category>.")],
    category: Categories = None,
    root: Annotated[Path | None, typer.Option("--root", "-r", help="Where the data set is now, if it moved.")] = None,
    set_: Set = None,
    device: Device = "auto",
    progress: Progress = True,
    as_json: AsJson = False,
) -> None:
    """Train the refinement network of fitted models on synthetic defects; the models then hold it beside the rest.

    Three steps, each resumed when killed: a pool of synthetic images with their maps (kept in OUT/refinement), the
    network, its calibration.  `--set refine_scope=all` trains one network for all categories.  Then
    `pni score --refined` and `pni evaluate --refined`.
    """
    from pnilib.apps.cli.opening import say_what_materials_were_read, say_what_was_found
    from pnilib.data import Dataset
    from pnilib.detector.pni import PNI
    from pnilib.detector.refine import checkpoint_folder
    from pnilib.detector.refine import refine as refine_models
    from pnilib.detector.runs import open_run, run_categories
    from pnilib.store.locks import lock_folder

    overrides = PNIConfig.parse_overrides(set_ or [])
    stages = {row["name"]: row["stage"] for row in PNIConfig.describe()}
    for name in overrides:
        if stages[name] not in _STAGES:
            raise PNIError(f"{name}: belongs to the fit: `pni refine` sets what `pni config` lists under {_STAGES}")
    found: dict[str, tuple[Path, PNI, Dataset]] = {}
    for folder in run_categories(run, category):
        model, data = open_run(folder, device_name(device), root)
        found[data.category] = folder, model.with_config(**overrides), data
        say_what_was_found(data)
    scope = next(iter(found.values()))[1].config.refine_scope
    groups = [list(found)] if scope == "all" else [[name] for name in found]
    rows: list[dict[str, Any]] = []
    for names in groups:
        work = found[names[0]][0].parent / "refinement"
        with ExitStack() as held:
            for name in names:
                held.enter_context(lock_folder(found[name][0]))
            if all(found[name][1].refinement is not None for name in names):  # only the fusion may have changed
                refined = {name: found[name][1] for name in names}
                for name, model in refined.items():
                    if model.refined_calibration is None and model.config.calibration_images > 0:
                        model.calibrate(found[name][2].train, progress=progress)
            else:
                pairs = {name: (found[name][1], found[name][2].train) for name in names}
                refined = refine_models(pairs, work, progress=progress)
            for name in names:
                refined[name].save(found[name][0] / "model")
        for checkpoint in checkpoint_folder(work, names).glob("network-*"):
            shutil.rmtree(checkpoint, ignore_errors=True)  # the model holds the network now
        for name in names:
            rows.append(_row(name, refined[name]))
            if not as_json:
                typer.echo(_text(rows[-1], found[name][0]))
    say_what_materials_were_read(next(iter(found.values()))[1].config)
    if as_json:
        emit(rows)


def _row(name: str, model: Any) -> dict[str, Any]:
    assert model.refinement is not None
    history = model.refinement.history
    return {
        "category": name,
        "pool": model.refinement.pool,
        "parameters": sum(parameter.numel() for parameter in model.refinement.network.parameters()),
        "iterations": model.config.refine_iterations,
        "first_loss": history[0]["loss"] if history else None,
        "last_loss": history[-1]["loss"] if history else None,
    }


def _text(row: dict[str, Any], folder: Path) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in row["pool"]["kinds"].items())
    loss = "" if row["last_loss"] is None else f", loss {row['first_loss']:.3g} -> {row['last_loss']:.3g}"
    return (
        f"{row['category']}: refinement network of {row['parameters'] / 1e6:.2f} M parameters -> {folder / 'model'} "
        f"({row['iterations']} iterations on {row['pool']['images']} synthetic images: {kinds}{loss})"
    )
