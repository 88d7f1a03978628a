"""Files that are either complete or absent.

Every file is written to a temporary name beside its place and renamed when it is whole, so that a
stopped run, a full disk or a second reader never leaves or sees half a file.  An *artefact* is a
folder of such files: tensors as safetensors, settings as JSON, and a `manifest.json` with the
SHA-256 of each, checked whenever it is read.  No pickle anywhere: an artefact from a stranger can
be wrong, but it cannot run code.

    manifest.json       {"format": "pnilib-artefact", "version": 3, "pnilib": "0.2.0", "files": {...}}
    meta.json           whatever the writer says about the tensors
    STEM.safetensors    one file for each group of tensors

Nothing here is from the paper.
"""

import csv
import errno
import hashlib
import importlib.metadata
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import filelock
import safetensors.torch
from torch import Tensor

from pnilib.errors import PNIError
from pnilib.store.replacing import settled, swap
from pnilib.store.text import read_json

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "atomic_write",
    "exclusive",
    "is_output",
    "mark_output",
    "os_errors",
    "pnilib_version",
    "read_artefact",
    "write_artefact",
    "write_csv",
    "write_json",
]

FORMAT = "pnilib-artefact"
FORMAT_VERSION = 3
"""Raise it when another pnilib would read what this one writes otherwise: a setting, a default, a tensor more."""

_LOCK = ".pnilib.lock"
_MARK = ".pnilib-output"
_RECORDS = {"run.json": {"config", "data", "versions"}, "unit.json": {"kind", "member", "source"}}
_SCORES = "image,score,defective,problem\n"
"""What tells folders of results of the versions before the marker: a file and keys in it, or how it begins."""
_MANIFEST = "manifest.json"
_META = "meta.json"
_STEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@contextmanager
def os_errors(path: Path | str) -> Iterator[None]:
    """Turn the operating system's refusals about `path` into one PNIError line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise PNIError(f"{path}: the disk is full: free some space or choose another folder") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise PNIError(f"{path}: no permission: choose another folder") from error
        reason = error.strerror or str(error)
        raise PNIError(f"{path}: {reason}: check the path") from error


@contextmanager
def atomic_write(path: Path | str, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file that becomes `path` when the block ends without an error.

    `mode` is "w" (UTF-8 text; half a character, as in an undecodable file name, as `\\udcNN`, which JSON reads back) or
    "wb".  Parent folders are made.  After an error nothing is left,
    and an older `path` stays as it was.  Raises PNIError when the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name[:50]}.{secrets.token_hex(4)}.tmp")  # 255 bytes are a name's limit
    with os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        text = {} if "b" in mode else {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
        try:
            with open(temporary, mode.replace("w", "x"), **text) as handle:  # type: ignore[call-overload]
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON, keys in the given order.

    Raises PNIError for a value that JSON has no word for (NaN, a tensor, ...) and when the folder
    cannot be written.
    """
    with atomic_write(path) as handle:
        handle.write(_json_text(path, value))


def write_csv(path: Path | str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write a tidy table: a header, then one line a row; floats keep every digit, None is empty.

    Raises PNIError when a row has a column that is not listed, or the folder cannot be written.
    """
    for row in rows:
        if unknown := [name for name in row if name not in columns]:
            raise PNIError(f"{path}: column {unknown[0]!r} is not in the header: add it to `columns`")
    with atomic_write(path) as handle:
        writer = csv.DictWriter(handle, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_artefact(directory: Path | str, tensors: dict[str, dict[str, Tensor]], meta: dict[str, Any]) -> None:
    """Write the folder `directory`: one safetensors file for each key of `tensors`, and `meta`.

    Tensors of any shape and dtype that safetensors knows are stored from the CPU.  An older
    artefact in the same place is replaced only once the new one is complete; of several writers at
    once the last wins.  Raises PNIError for a folder with anything else in it, for a stem that is no
    plain file name, for meta that is not JSON, and when the place cannot be written.
    """
    directory = Path(directory).resolve()
    for stem in tensors:
        if not _STEM.fullmatch(stem):
            raise PNIError(f"{directory}: {stem!r} is no plain file name: use letters, digits, - and _")
    settled(directory, lambda: _refuse_foreign(directory))
    meta_blob = _json_text(directory / _META, meta).encode("utf-8", "backslashreplace")
    files: dict[str, dict[str, Any]] = {}
    with os_errors(directory):
        new = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}.tmp")

        def put(name: str, blob: bytes) -> None:
            files[name] = {"bytes": len(blob), "sha256": _sha256(blob)}
            with atomic_write(new / name, "wb") as handle:
                handle.write(blob)

        try:
            new.mkdir(parents=True)
            put(_META, meta_blob)
            for stem, group in tensors.items():  # one file in memory at a time
                whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in group.items()}
                put(f"{stem}.safetensors", safetensors.torch.save(whole))
            manifest = {"format": FORMAT, "version": FORMAT_VERSION, "pnilib": pnilib_version(), "files": files}
            write_json(new / _MANIFEST, manifest)
            swap(new, directory)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def read_artefact(directory: Path | str) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Read what `write_artefact` wrote: (tensors by file stem and name, meta), tensors on the CPU.

    Whole also while it is being replaced: then the older one or the newer.  Raises PNIError, naming
    the folder, when it is missing, not an artefact, half-written, altered in any bit of its files, or
    made by a newer pnilib.
    """
    directory = Path(directory)
    return settled(directory, lambda: _read(directory))


def _read(directory: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    manifest = _manifest(directory)
    tensors: dict[str, dict[str, Tensor]] = {}
    meta: dict[str, Any] = {}
    for name, expected in manifest["files"].items():
        blob = _checked_bytes(directory, name, expected)
        try:
            if name == _META:
                meta = json.loads(blob)
            else:
                tensors[name.removesuffix(".safetensors")] = safetensors.torch.load(blob)
        except (ValueError, safetensors.SafetensorError):
            raise PNIError(f"{directory}: {name} is damaged: make the artefact again") from None
    return tensors, meta


def mark_output(directory: Path | str) -> None:
    """Mark `directory` (made if absent) as the kit's own results: never to be read as images."""
    directory = Path(directory)
    with os_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        if not (directory / _MARK).exists():
            (directory / _MARK).write_text("Results of pnilib: no folder with this file is read as images.\n", "utf-8")


def is_output(directory: Path | str) -> bool:
    """Whether a folder holds results of the kit: by the marker file, or by what older versions wrote there."""
    directory = Path(directory)
    if (directory / _MARK).is_file() or any(_is_record(directory / name, keys) for name, keys in _RECORDS.items()):
        return True
    try:  # heat maps of `pni score`
        return directory.name == "heatmaps" and (directory.parent / "scores.csv").read_text("utf-8").startswith(_SCORES)
    except (OSError, ValueError):
        return False


def _is_record(file: Path, keys: set[str]) -> bool:
    try:
        return keys <= read_json(file).keys()
    except (OSError, ValueError, AttributeError):
        return False


@contextmanager
def exclusive(directory: Path | str, *, output: bool = True, wait: bool = False) -> Iterator[None]:
    """Hold `directory` (made if absent) for one run; `output`: and mark it as results.

    When another run, in this process or another, holds it: raises PNIError at once, or with `wait` waits, so that what
    the other has made is there to be used.  A run that died holds nothing.  Not for an artefact's own folder, which is
    replaced as a whole: hold the folder that it lies in.
    """
    directory = Path(directory)
    with os_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(directory / _LOCK, timeout=-1 if wait else 0)
    try:
        with os_errors(directory):
            try:
                lock.acquire()
            except filelock.Timeout:  # an OSError too, so it is caught inside
                raise PNIError(
                    f"{directory}: another run is writing there: wait for it or choose another folder"
                ) from None
        if output:
            mark_output(directory)
        yield
    finally:
        lock.release()


def pnilib_version() -> str:
    """Version of the installed package; "unknown" in a checkout that is not installed."""
    try:
        return importlib.metadata.version("pnilib")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _sha256(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()


def _json_text(path: Path | str, value: Any) -> str:
    try:
        return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise PNIError(f"{path}: not JSON ({error}): give plain finite values") from None


def _manifest(directory: Path) -> dict[str, Any]:
    """The manifest of `directory`, its form checked."""
    with os_errors(directory):
        if not directory.is_dir():
            raise PNIError(f"{directory}: there is no such artefact folder: check the path")
        if not (directory / _MANIFEST).is_file():
            raise PNIError(f"{directory}: not a pnilib artefact (no {_MANIFEST}): check the path")
        blob = (directory / _MANIFEST).read_bytes()
    broken = PNIError(f"{directory}: {_MANIFEST} is damaged: make the artefact again")
    try:
        manifest = json.loads(blob)
    except ValueError:
        raise broken from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise PNIError(f"{directory}: {_MANIFEST} is not that of a pnilib artefact: check the path")
    version, files = manifest.get("version"), manifest.get("files")
    if not isinstance(version, int):
        raise broken
    if version != FORMAT_VERSION:
        newer = version > FORMAT_VERSION
        raise PNIError(
            f"{directory}: made by pnilib {manifest.get('pnilib')} in {'a newer' if newer else 'an older'} format "
            f"({version}, this pnilib {pnilib_version()} reads {FORMAT_VERSION}): "
            f"{'upgrade pnilib' if newer else 'its settings and defaults were others: make it again'}"
        )
    if not isinstance(files, dict) or _META not in files:
        raise broken
    for name, expected in files.items():
        stem = name.removesuffix(".safetensors")
        plain = name == _META or (stem != name and _STEM.fullmatch(stem))
        if not plain or not isinstance(expected, dict):
            raise broken
    return manifest


def _checked_bytes(directory: Path, name: str, expected: dict[str, Any]) -> bytes:
    with os_errors(directory / name):
        if not (directory / name).is_file():
            raise PNIError(f"{directory}: {name} is missing: make the artefact again")
        blob = (directory / name).read_bytes()
    if len(blob) != expected.get("bytes"):
        raise PNIError(
            f"{directory}: {name} has {len(blob)} bytes, not {expected.get('bytes')}: half-written, "
            "make the artefact again"
        )
    if _sha256(blob) != expected.get("sha256"):
        raise PNIError(f"{directory}: {name} is damaged (wrong SHA-256): make the artefact again")
    return blob


def _refuse_foreign(directory: Path) -> None:
    """Nothing but an artefact may be replaced: not a file, not a folder with someone's own files."""
    with os_errors(directory):
        if not directory.exists():
            return
        if not directory.is_dir():
            raise PNIError(f"{directory}: is a file: choose a folder")
        names = {entry.name for entry in directory.iterdir()} - {_LOCK, _MARK}
    if not names:
        return
    try:
        known = {_MANIFEST, *_manifest(directory)["files"]}
    except PNIError:
        raise PNIError(
            f"{directory}: holds files but no readable artefact: choose another folder, or empty it yourself"
        ) from None
    if foreign := sorted(names - known):
        raise PNIError(f"{directory}: also holds {foreign[0]}: move it away or choose another folder")
