"""The explorer as a page of its own: Voilà runs one notebook cell, and nothing else can be read through it.

Bound to this machine unless told otherwise, behind a token that the printed address carries.  The page's notebook lies
in a temporary folder; Voilà's file route serves no file, and its kernels take widget messages only, no code.  The page
asks nobody but its own server for anything: its template leaves out what Voilà's fetches from elsewhere, and a policy
that browsers keep forbids the rest.

Each open page has a kernel, which ends with the page: at a reload or a closed tab at once, after a crash when it was
left alone for IDLE.
"""

import json
import os
import secrets
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat

from pnilib.errors import PNIError

__all__ = ["free_port", "page_notebook", "serve"]

IDLE, CHECK = 300, 60
"""s, after which a kernel without a page ends, and between two looks; a page that is only read keeps its kernel."""
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'self'"
)
"""Content-Security-Policy of every answer.  Widgets are modules made of text, and styles in place, hence the unsafe
ones; what matters is that no other address is in it."""
TEMPLATE = Path(__file__).parent / "page"
_SETTING = "PNILIB_EXPLORE"
_CELL = f"""\
import json, os
from pnilib.apps.explore.widgets import page
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
    from traitlets.config import Config
    from voila.app import Voila

    class Page(Voila):  # type: ignore[misc]
        def setup_template_dirs(self) -> None:
            super().setup_template_dirs()
            self.template_paths: list[str] = [str(TEMPLATE), *self.template_paths]

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
        config = Config(
            Voila=dict(
                ip=host, port=port, port_retries=0, token=token, open_browser=browser, log_level="WARN",
                config_file_paths=[],  # no setting of the user's own opens what is closed here
                tornado_settings={"headers": {"Content-Security-Policy": POLICY}},
            ),
            VoilaConfiguration=dict(
                file_allowlist=[], allow_template_override="NO", allow_theme_override="NO", show_tracebacks=False,
                prelaunch_hook=_let_pages_end_their_kernel,
            ),
            MappingKernelManager=dict(cull_idle_timeout=IDLE, cull_interval=CHECK),
        )  # fmt: skip
        Page.launch_instance([str(notebook)], config=config)


def _let_pages_end_their_kernel(handler: Any, notebook: Any, cwd: Any) -> None:
    """A page that goes asks the server to end its kernel, and shows a cookie that Voilà itself forgets to set."""
    handler.xsrf_token  # noqa: B018


def _require_free(host: str, port: int) -> None:
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, OverflowError) as fault:
        reason = getattr(fault, "strerror", None) or fault
        raise PNIError(f"--port {port}: cannot be used ({reason}): choose another, or leave it out") from None
