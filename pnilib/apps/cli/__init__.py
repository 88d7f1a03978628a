"""The command `pni`: the same functions as in Python, with progress bars and plain words.

A user's mistake ends in one line on standard error and exit status 2; Ctrl-C in status 130, with what was
finished kept; a failed notebook in status 1.
"""

import io
import os
import re
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import requires

import typer

from pnilib.apps.cli import backbones, data, demo, explore, model, nsa, refinement, reproduce, score, segad
from pnilib.errors import PNIError

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Industrial anomaly detection with position and neighborhood information (PNI, ICCV 2023).

The whole job on embedded data, offline:  pni demo

Your own images:  pni fit --dataset folder --root NORMAL_IMAGES --out runs/mine
then  pni score runs/mine/NORMAL_IMAGES NEW_IMAGES --out scored

A data set with ground truth:  pni data mtd --root data/mtd;  pni fit --dataset mtd --root data/mtd ...;
pni evaluate runs/mtd;
pni refine runs/mtd;  pni evaluate runs/mtd --refined

Every table and figure of the paper:  pni reproduce  (on the demo data; --data mvtec=FOLDER for the real ones)

Why was this sample misclassified?  pni explore runs/mtd""",
)


def _version(value: bool | None) -> None:
    if value:
        from pnilib.store.version import pnilib_version

        typer.echo(pnilib_version())
        raise typer.Exit()


@app.callback()
def _root(
    version: bool | None = typer.Option(None, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    from PIL import Image

    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # refused in the kit's own words


app.add_typer(data.app, name="data")
app.add_typer(nsa.app, name="nsa")
app.add_typer(segad.app, name="segad")
_COMMANDS: tuple[Callable[..., None], ...] = (
    demo.demo, model.config, backbones.backbones, model.estimate, model.fit, refinement.refine, score.score,
    model.evaluate, reproduce.ablation, reproduce.reproduce, reproduce.runs, explore.explore,
    demo.notebooks,
)  # fmt: skip
for _command in _COMMANDS:
    app.command()(_command)


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):  # file names and messages in letters that the terminal has not
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(standalone_mode=False)
        if code == 130:  # typer's answer to Ctrl-C
            raise KeyboardInterrupt
    except PNIError as fault:
        sys.exit(_fail(str(fault), 2))
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(_fail("interrupted: what was finished is kept, the same command resumes", 130))
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except ModuleNotFoundError as fault:
        command = next(iter(sys.argv[1:]), "")
        extra = extra_of((fault.name or "").partition(".")[0], {"ablation": "reproduce"}.get(command, command))
        if not extra:
            raise
        sys.exit(_fail(f'{fault.name} is not installed: pip install "pnilib[{extra}]"', 2))
    except MemoryError:
        sys.exit(_fail("out of memory: `pni estimate` says what a run needs", 2))
    except OSError as fault:
        sys.exit(_fail(f"{fault.filename or 'a file'}: {fault.strerror or fault}: check the place and its rights", 2))
    except Exception as fault:
        if hasattr(fault, "format_message"):  # a usage error of click, which typer carries within itself
            sys.exit(_fail(f"{fault.format_message()}: `pni --help` and `pni COMMAND --help` explain", 2))
        raise
    sys.exit(code or 0)


def extra_of(module: str, command: str = "") -> str:
    """The extra of pyproject.toml that brings a module, "" for none: the one called like the command where there is
    one.  Distributions are called like their modules, but for two."""
    names = {"yaml": "pyyaml", "skimage": "scikit-image"}
    bring: dict[str, set[str]] = {}
    for line in requires("pnilib") or []:
        name, _, condition = line.partition(";")
        if found := re.search(r"extra == ['\"](\w+)", condition):
            bring.setdefault(found[1], set()).add(re.match(r"[\w-]*", name)[0].lower())  # type: ignore[index]
    extras = [extra for extra, brought in bring.items() if names.get(module, module) in brought and extra != "dev"]
    return command if extras and command in bring else next(iter(extras), "")


def _fail(text: str, status: int) -> int:
    typer.echo(f"error: {' '.join(text.split())}" if status == 2 else text, err=True)
    return status
