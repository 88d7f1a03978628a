"""Fetch a public data set: resume, verify, unpack, and only then put it in its place.

pooch names, hashes and moves the file; `_Resuming` is the downloader it calls, because pooch's
own starts again from nothing after an interruption.

Where `SOURCES` has no checksum, the first download is trusted, its SHA-256 is printed and kept beside the archive
(`ARCHIVE.sha256`), and every later use is checked against it.
"""

import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pooch
import requests
from tqdm import tqdm

from pnilib.data.archives import extract
from pnilib.data.dataset import list_categories
from pnilib.data.sources import SOURCES
from pnilib.errors import PNIError
from pnilib.store.files import atomic_write, write_json
from pnilib.store.locks import lock_folder

__all__ = ["fetch", "prepare_dataset"]


def prepare_dataset(
    name: str,
    root: str | Path,
    *,
    archive: str | Path | None = None,
    url: str | None = None,
    sha256: str | None = None,
    progress: bool = True,
    report: Callable[[str], None] = print,
) -> Path:
    """Make the data set exist below `root`; returns the folder to give to `load_dataset`.

    Does nothing when it is there already.  `archive`: a file downloaded by hand, used instead of
    the link.  `sha256`: pins the archive; `url`: another link.  The archive stays in `downloads`
    beside `root` and can be removed.  Nothing that exists is overwritten.

    Raises PNIError when the name has no source, the checksum differs, the connection breaks (call
    again to resume), or the archive is damaged, unsafe or of another layout.
    """
    root = Path(root).expanduser()
    if name not in SOURCES:
        raise PNIError(f"data set {name!r}: there is nothing to download: choose one of {', '.join(SOURCES)}")
    source = SOURCES[name]
    if root.is_dir() and any(root.iterdir()):
        _require_layout(name, root, f"{root}: is not empty but holds no {name} data: choose a new folder")
        report(f"{root}: {name} is there already")
        return root
    report(f"{source.title}; licence: {source.licence}; {source.page}")
    if archive is not None:
        packed = Path(archive).expanduser()
        if not packed.is_file():
            raise PNIError(f"{packed}: does not exist: check the path of the archive")
        if sha256 is not None:
            _verify(packed, sha256)
    elif (url or source.url) is None:
        raise PNIError(
            f"{name}: cannot be downloaded by a program: accept the terms at {source.page}, then unpack "
            f"the archive into {root}, or give it as archive="
        )
    else:
        link = url or source.url or ""
        expected = sha256 or (source.sha256 if url is None else None)
        filename = source.archive or link.rsplit("/", 1)[-1]
        packed = fetch(link, root.parent / "downloads" / filename, expected, progress, report)
    foreign = f"{packed}: holds no {name} data: choose another archive"
    extract(packed, root, progress, accept=lambda unpacked: _require_layout(name, unpacked, foreign))
    return root


def fetch(
    url: str,
    path: Path,
    sha256: str | None = None,
    progress: bool = True,
    report: Callable[[str], None] = print,
) -> Path:
    """Download `url` to `path`, resuming `path`.part, and verify it.  An existing file is only verified.

    Raises PNIError when the checksum differs (an existing file is left alone, a new one removed)
    or the connection fails (what has arrived is kept).
    """
    pooch.get_logger().setLevel("WARNING")
    path.parent.mkdir(parents=True, exist_ok=True)
    note = path.with_name(path.name + ".sha256")
    with lock_folder(path.parent, output=False):
        trusted = sha256 or (note.read_text(encoding="utf-8").split()[0] if note.is_file() else None)
        if path.is_file():
            if trusted is not None:
                _verify(path, trusted)
        else:
            try:
                pooch.retrieve(url, trusted, path.name, path.parent, downloader=_Resuming(path, progress))
            except PNIError:
                raise
            except (requests.RequestException, OSError) as fault:
                reason = " ".join(str(fault).split())[:200]
                raise PNIError(f"{url}: download failed ({reason}): call again to resume it") from None
            except ValueError as fault:  # pooch: hash mismatch; the file is gone
                found = re.findall(r"[0-9a-f]{64}", str(fault))
                actual = next((h for h in found if h != str(trusted).lower()), "unknown")
                raise PNIError(
                    f"{url}: SHA-256 is {actual}, expected {trusted}: discarded; try again, or pin the "
                    "new value with sha256= once you have checked it"
                ) from None
        if trusted is None:
            digest = pooch.file_hash(os.fspath(path))
            with atomic_write(note) as file:
                file.write(f"{digest}  {path.name}\n")
            report(f"{path}: no published checksum; trusted on first use, SHA-256 {digest} noted in {note.name}")
    return path


class _Resuming:
    """A pooch downloader that continues `path`.part with an HTTP range request.

    It continues only what is certainly the same file: the server's ETag or date, kept in
    `path`.part.json, goes along as If-Range, so a changed file is sent from its start.
    """

    def __init__(self, path: Path, progress: bool) -> None:
        self.part = path.with_name(path.name + ".part")
        self.state = path.with_name(path.name + ".part.json")
        self.progress = progress

    def __call__(self, url: str, output_file: Any, pooch: Any, check_only: bool = False) -> None:
        have, headers = 0, {"Accept-Encoding": "identity"}
        if self.part.is_file() and (validator := self._validator(url)):
            have = self.part.stat().st_size
            headers |= {"Range": f"bytes={have}-", "If-Range": validator} if have else {}
        with requests.get(url, headers=headers, stream=True, timeout=(30, 60)) as answer:
            if answer.status_code == 416:  # nothing is left to send, or the part is no beginning of that file
                complete = have > 0 and answer.headers.get("Content-Range") == f"bytes */{have}"
                if complete:
                    shutil.move(self.part, output_file)
                self._forget()
                if complete:
                    return
                raise PNIError(f"{url}: the server cannot resume: call again to start afresh")
            answer.raise_for_status()
            if answer.status_code != 206 or not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                have = 0
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length else None
            self._remember(url, answer)
            self._receive(answer, have, total)
        if total is not None and self.part.stat().st_size != total:
            raise PNIError(f"{url}: ended early ({self.part.stat().st_size} of {total} bytes): call again to resume")
        shutil.move(self.part, output_file)
        self._forget()

    def _receive(self, answer: requests.Response, have: int, total: int | None) -> None:
        free = shutil.disk_usage(self.part.parent).free
        if total is not None and total - have > free:
            raise PNIError(f"{self.part.parent}: needs {total - have} bytes, {free} are free: make room")
        with (
            open(self.part, "ab" if have else "wb") as file,
            tqdm(
                total=total,
                initial=have,
                unit="B",
                unit_scale=True,
                desc="download",
                disable=not self.progress,
            ) as bar,
        ):
            for chunk in answer.iter_content(1 << 16):
                file.write(chunk)
                bar.update(len(chunk))

    def _validator(self, url: str) -> str | None:
        with suppress(OSError, ValueError):
            state = json.loads(self.state.read_text(encoding="utf-8"))
            if isinstance(state, dict) and state.get("url") == url and isinstance(state.get("validator"), str):
                return str(state["validator"])
        return None

    def _remember(self, url: str, answer: requests.Response) -> None:
        etag = answer.headers.get("ETag", "")
        validator = etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified", "")
        write_json(self.state, {"url": url, "validator": validator})

    def _forget(self) -> None:
        for path in (self.part, self.state):
            path.unlink(missing_ok=True)


def _verify(path: Path, sha256: str) -> None:
    actual = pooch.file_hash(os.fspath(path))
    if actual != sha256.lower():
        raise PNIError(f"{path}: SHA-256 is {actual}, expected {sha256}: remove the file and fetch it again")


def _require_layout(name: str, folder: Path, problem: str) -> None:
    try:
        list_categories(name, folder)
    except PNIError:
        raise PNIError(problem) from None
