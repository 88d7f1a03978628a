"""The explorer as a page of its own: Voilà runs one notebook cell, and nothing else can be read through it.

Bound to this machine unless told otherwise, behind a token that the printed address carries.  The page's notebook lies
in a temporary folder; Voilà's file route serves no file, and its kernels take widget messages only, no code.
"""

import json
import os
import secrets
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import nbformat

from pnilib.errors import PNIError

__all__ = ["free_port", "page_notebook", "serve"]

_SETTING = "PNILIB_EXPLORE"
_NO_NAME = "(?!)."
"""Matches nothing; an empty list cannot be said on a command line."""
_CELL = f"""\
import json, os
from pnilib.explore.widgets import page
page(**json.loads(os.environ["{_SETTING}"]))
"""


def page_notebook() -> nbformat.NotebookNode:
    """The whole notebook behind the page."""
    found = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(_CELL)])
    found.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    return found


def free_port(host: str) -> int:
    """A port that nobody listens on now.  Raises PNIError for a host that is not this machine's."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.bind((host, 0))
            return int(probe.getsockname()[1])
    except OSError as fault:
        raise PNIError(f"--host {host}: cannot be bound ({fault.strerror or fault}): use 127.0.0.1") from None


def serve(
    run: Path, *, data: Path | None, other: Path | None, notes: Path | None, host: str, port: int, browser: bool,
    say: Callable[[str], None] = print,
) -> None:  # fmt: skip
    """Serve until interrupted.  Says the address, token included.  Raises PNIError for a port or host that cannot be
    used."""
    from voila.app import Voila

    free, token = free_port(host), secrets.token_hex(24)
    if port:
        _require_free(host, port)
    port = port or free
    chosen = {"run": run, "data": data, "other": other, "notes": notes}
    os.environ[_SETTING] = json.dumps({k: None if v is None else str(Path(v).resolve()) for k, v in chosen.items()})
    with tempfile.TemporaryDirectory(prefix="pnilib-explore-") as folder:
        notebook = Path(folder) / "explorer.ipynb"
        nbformat.write(page_notebook(), notebook)
        shown = f"[{host}]" if ":" in host else host
        say(f"the explorer is at http://{shown}:{port}/?token={token}  (Ctrl+C ends it)")
        Voila.launch_instance(
            [
                str(notebook), f"--port={port}", "--Voila.port_retries=0", f"--Voila.ip={host}",
                f"--Voila.token={token}", f"--Voila.open_browser={browser}", "--Voila.log_level=WARN",
                f"--VoilaConfiguration.file_allowlist={_NO_NAME}", "--VoilaConfiguration.allow_template_override=NO",
                "--VoilaConfiguration.allow_theme_override=NO", "--VoilaConfiguration.show_tracebacks=False",
            ]
        )  # fmt: skip


def _require_free(host: str, port: int) -> None:
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, OverflowError) as fault:
        reason = getattr(fault, "strerror", None) or fault
        raise PNIError(f"--port {port}: cannot be used ({reason}): choose another, or leave it out") from None
