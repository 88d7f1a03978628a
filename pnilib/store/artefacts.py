"""Artefacts: folders of tensors and facts that are complete and unaltered, or refused.

Tensors as safetensors, settings as JSON, and a `manifest.json` with the SHA-256 of each file, checked whenever it is
read.  No pickle anywhere: an artefact from a stranger can be wrong, but it cannot run code.

    manifest.json       {"format": "pnilib-artefact", "version": 3, "pnilib": "0.2.0", "files": {...}}
    meta.json           whatever the writer says about the tensors
    STEM.safetensors    one file for each group of tensors
"""

import hashlib
import json
import re
import secrets
import shutil
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from pnilib.errors import PNIError
from pnilib.store.files import atomic_write, json_text, os_errors, write_json
from pnilib.store.locks import LOCK, MARK
from pnilib.store.replacing import settled, swap
from pnilib.store.version import pnilib_version

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "read_artefact",
    "read_meta",
    "write_artefact",
]

FORMAT = "pnilib-artefact"
FORMAT_VERSION = 3
"""Raise it when another pnilib would read what this one writes otherwise: a setting, a default, a tensor more."""

_MANIFEST = "manifest.json"
_META = "meta.json"
_STEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


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
    meta_blob = json_text(directory / _META, meta).encode("utf-8", "backslashreplace")
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


def read_meta(directory: Path | str) -> dict[str, Any]:
    """The facts alone of what `read_artefact` reads, without its tensors; refused as there."""
    directory = Path(directory)
    return settled(directory, lambda: _part(directory, _META, _manifest(directory)["files"][_META]))


def _read(directory: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    parts = {name: _part(directory, name, expected) for name, expected in _manifest(directory)["files"].items()}
    meta = parts.pop(_META)
    return {name.removesuffix(".safetensors"): tensors for name, tensors in parts.items()}, meta


def _part(directory: Path, name: str, expected: dict[str, Any]) -> dict[str, Any]:
    """One file, its bytes checked: tensors by name, or the facts."""
    blob = _checked_bytes(directory, name, expected)
    try:
        return dict(json.loads(blob) if name == _META else safetensors.torch.load(blob))
    except (ValueError, TypeError, safetensors.SafetensorError):
        raise PNIError(f"{directory}: {name} is damaged: delete {directory} and make it again") from None


def _sha256(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()


def _manifest(directory: Path) -> dict[str, Any]:
    """The manifest of `directory`, its form checked."""
    with os_errors(directory):
        if not directory.is_dir():
            raise PNIError(f"{directory}: there is no such artefact folder: check the path")
        if not (directory / _MANIFEST).is_file():
            raise PNIError(f"{directory}: not a pnilib artefact (no {_MANIFEST}): check the path")
        blob = (directory / _MANIFEST).read_bytes()
    broken = PNIError(f"{directory}: {_MANIFEST} is damaged: delete {directory} and make it again")
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
            f"{'upgrade pnilib' if newer else 'its settings and defaults were others: delete it and make it again'}"
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
            raise PNIError(f"{directory}: {name} is missing: delete {directory} and make it again")
        blob = (directory / name).read_bytes()
    if len(blob) != expected.get("bytes"):
        raise PNIError(
            f"{directory}: {name} has {len(blob)} bytes, not {expected.get('bytes')}: half-written, "
            f"delete {directory} and make it again"
        )
    if _sha256(blob) != expected.get("sha256"):
        raise PNIError(f"{directory}: {name} is damaged (wrong SHA-256): delete {directory} and make it again")
    return blob


def _refuse_foreign(directory: Path) -> None:
    """Nothing but an artefact may be replaced: not a file, not a folder with someone's own files."""
    with os_errors(directory):
        if not directory.exists():
            return
        if not directory.is_dir():
            raise PNIError(f"{directory}: is a file: choose a folder")
        names = {entry.name for entry in directory.iterdir()} - {LOCK, MARK}
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
