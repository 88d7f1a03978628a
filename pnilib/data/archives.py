"""Unpack an archive that somebody else made: completely, within its folder, or not at all."""

import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from pnilib.errors import PNIError

__all__ = ["extract"]


def extract(archive: Path, folder: Path, progress: bool = True, accept: Callable[[Path], None] | None = None) -> None:
    """Unpack a .tar(.gz|.xz|.bz2) or .zip into `folder`, which must not exist or be empty.

    Members are unpacked beside `folder`, which gets its name only when all are there and `accept`,
    called with the unpacked folder, has not raised.
    Raises PNIError when the archive is damaged, does not fit on the disk, or has a member that
    would land outside (`..`, absolute paths, links, devices); `folder` is then untouched.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PNIError(f"{folder}: exists and is not empty: choose a new folder, or remove this one yourself")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.partial-") as scratch:
        unpacked = Path(scratch) / "unpacked"
        unpacked.mkdir()
        try:
            if tarfile.is_tarfile(archive):  # first: a tar that ends with a zip looks like a zip
                _untar(archive, unpacked, progress)
            elif zipfile.is_zipfile(archive):
                _unzip(archive, unpacked, progress)
            else:
                raise PNIError(f"{archive}: is neither zip nor tar: download it again")
        except tarfile.FilterError as fault:
            raise PNIError(f"{archive}: unsafe member ({fault}): do not use this archive") from None
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, RuntimeError) as fault:
            raise PNIError(f"{archive}: cannot be unpacked ({fault}): download it again") from None
        if accept is not None:
            accept(unpacked)
        if folder.exists():
            folder.rmdir()
        unpacked.rename(folder)


def _unzip(archive: Path, folder: Path, progress: bool) -> None:
    with zipfile.ZipFile(archive) as source:
        members = source.infolist()
        _fits(archive, sum(m.file_size for m in members), folder)
        for member in members:
            name = PurePosixPath(member.filename)
            outside = name.is_absolute() or ".." in name.parts or "\\" in member.filename or ":" in member.filename
            if outside or stat.S_ISLNK(member.external_attr >> 16):
                raise PNIError(f"{archive}: unsafe member {member.filename!r}: do not use this archive")
        for member in tqdm(members, desc="unpack", unit="file", disable=not progress):
            source.extract(member, folder)


def _untar(archive: Path, folder: Path, progress: bool) -> None:
    with tarfile.open(archive) as source:
        for member in tqdm(source, desc="unpack", unit="file", disable=not progress):
            _fits(archive, member.size, folder)
            if ".." in PurePosixPath(member.name).parts or PurePosixPath(member.name).is_absolute():
                raise PNIError(f"{archive}: unsafe member {member.name!r}: do not use this archive")
            source.extract(member, folder, filter="data")
        # tarfile takes a missing end for the end: look for the zero block that closes an archive
        assert source.fileobj is not None
        source.fileobj.seek(source.offset)
        if source.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise PNIError(f"{archive}: is truncated: download it again")


def _fits(archive: Path, n_bytes: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise PNIError(f"{archive}: needs {n_bytes / 1e9:.1f} GB but {free / 1e9:.1f} GB are free: make room")
