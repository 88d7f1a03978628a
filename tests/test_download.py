"""A little web server that can break off, change its mind, and lie."""

import hashlib
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from test_data import btad, mtd, mvtec

from pnilib.data import SOURCES, load_dataset, prepare_dataset
from pnilib.data.archives import extract
from pnilib.data.download import fetch
from pnilib.errors import PNIError

BODY = bytes(range(256)) * 2000


class Server(ThreadingHTTPServer):
    """Serves `body`; closes the line after `stop_after` bytes of an answer."""

    body: bytes = BODY
    etag: str = '"one"'
    stop_after: int | None = None
    ranges: bool = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[str | None] = []
        self.starts: list[int] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/file.zip"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.requests.append(asked)
        body, start = self.server.body, 0
        if asked and self.server.ranges and self.headers.get("If-Range") == self.server.etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        self.server.starts.append(start)
        if start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if self.server.etag:
            self.send_header("ETag", self.server.etag)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        stop = self.server.stop_after
        self.wfile.write(body[start:] if stop is None else body[start : start + stop])
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=0.01))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def quiet(url: str, path: Path, sha256: str | None = None) -> list[str]:
    said: list[str] = []
    fetch(url, path, sha256, progress=False, report=said.append)
    return said


def test_whole_file(server, tmp_path):
    assert quiet(server.url, tmp_path / "f.zip", sha(BODY)) == []
    assert (tmp_path / "f.zip").read_bytes() == BODY
    assert not list(tmp_path.glob("*.part*"))
    quiet(server.url, tmp_path / "f.zip", sha(BODY))
    assert server.requests == [None]  # the second call downloads nothing


def test_interrupted_download_resumes(server, tmp_path):
    server.stop_after = 200_000
    with pytest.raises(PNIError, match="resume"):
        quiet(server.url, tmp_path / "f.zip", sha(BODY))
    arrived = (tmp_path / "f.zip.part").stat().st_size
    assert 0 < arrived <= 200_000 and not (tmp_path / "f.zip").exists()
    server.stop_after = None
    quiet(server.url, tmp_path / "f.zip", sha(BODY))
    assert server.requests == [None, f"bytes={arrived}-"]
    assert server.starts == [0, arrived]  # only the rest was sent
    assert (tmp_path / "f.zip").read_bytes() == BODY


def test_a_file_that_changed_meanwhile_starts_afresh(server, tmp_path):
    server.stop_after = 200_000
    with pytest.raises(PNIError):
        quiet(server.url, tmp_path / "f.zip")
    server.stop_after, server.etag, server.body = None, '"two"', BODY[::-1]
    quiet(server.url, tmp_path / "f.zip")
    assert (tmp_path / "f.zip").read_bytes() == BODY[::-1]


@pytest.mark.parametrize("lacks", ["ranges", "etag"])
def test_servers_that_cannot_resume(server, tmp_path, lacks):
    server.stop_after = 200_000
    setattr(server, lacks, False if lacks == "ranges" else "")
    with pytest.raises(PNIError):
        quiet(server.url, tmp_path / "f.zip")
    server.stop_after = None
    quiet(server.url, tmp_path / "f.zip")
    assert (tmp_path / "f.zip").read_bytes() == BODY


def test_stopped_between_the_last_byte_and_the_renaming(server, tmp_path):
    (tmp_path / "f.zip.part").write_bytes(BODY)
    (tmp_path / "f.zip.part.json").write_text(json.dumps({"url": server.url, "validator": '"one"'}))
    quiet(server.url, tmp_path / "f.zip", sha(BODY))
    assert (tmp_path / "f.zip").read_bytes() == BODY


def test_wrong_checksum_of_a_new_file(server, tmp_path):
    with pytest.raises(PNIError, match=f"SHA-256 is {sha(BODY)}, expected {'0' * 64}: discarded"):
        quiet(server.url, tmp_path / "f.zip", "0" * 64)
    assert not list(tmp_path.glob("f.zip*"))


def test_an_existing_file_is_verified_and_never_overwritten(server, tmp_path):
    (tmp_path / "f.zip").write_bytes(b"mine")
    with pytest.raises(PNIError, match=r"f.zip: SHA-256 is .*remove the file"):
        quiet(server.url, tmp_path / "f.zip", sha(BODY))
    assert (tmp_path / "f.zip").read_bytes() == b"mine" and server.requests == []


def test_trust_on_first_use(server, tmp_path):
    said = quiet(server.url, tmp_path / "f.zip")
    assert sha(BODY) in said[0] and "no published checksum" in said[0]
    assert (tmp_path / "f.zip.sha256").read_text() == f"{sha(BODY)}  f.zip\n"
    assert quiet(server.url, tmp_path / "f.zip") == []
    (tmp_path / "f.zip").write_bytes(b"changed")
    with pytest.raises(PNIError, match="SHA-256"):
        quiet(server.url, tmp_path / "f.zip")
    (tmp_path / "f.zip").unlink()  # fetched again, another file is refused
    server.body = BODY[::-1]
    with pytest.raises(PNIError, match="discarded"):
        quiet(server.url, tmp_path / "f.zip")


def test_no_server(tmp_path):
    with Server() as closed:
        url = closed.url
    with pytest.raises(PNIError, match="download failed") as caught:
        quiet(url, tmp_path / "f.zip")
    assert "\n" not in str(caught.value)


def pack(source: Path, archive: Path) -> Path:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as out:
            for path in sorted(source.rglob("*")):
                out.write(path, path.relative_to(source).as_posix())
    else:
        with tarfile.open(archive, "w:xz" if archive.suffix == ".xz" else "w") as out:
            out.add(source, ".")
    return archive


def test_prepare_downloads_verifies_and_unpacks(server, tmp_path):
    server.body = pack(btad(tmp_path / "src" / "BTech_Dataset_transformed").parent, tmp_path / "x.zip").read_bytes()
    root, said = tmp_path / "data" / "btad", list[str]()
    prepare = dict(url=server.url, sha256=sha(server.body), progress=False, report=said.append)
    assert prepare_dataset("btad", root, **prepare) == root
    assert len(load_dataset("btad", root, "01").train) == 4
    assert "licence" in said[0]
    prepare_dataset("btad", root, **prepare)
    assert "is there already" in said[-1] and len(server.requests) == 1


@pytest.mark.parametrize("name", ["mvtec", "mtd"])
def test_prepare_from_an_archive_at_hand(tmp_path, name):
    source = (
        mvtec(tmp_path / "src")
        if name == "mvtec"
        else mtd(tmp_path / "src" / "Magnetic-tile-defect-datasets.-abc").parent
    )
    archive = pack(source, tmp_path / ("a.tar.xz" if name == "mvtec" else "a.zip"))
    root = prepare_dataset(name, tmp_path / "root", archive=archive, progress=False, report=lambda line: None)
    assert len(load_dataset(name, root).train) > 0 and archive.is_file()


def test_prepare_mistakes(tmp_path):
    def prepare(name, root=tmp_path / "new", **options):
        prepare_dataset(name, root, progress=False, report=lambda line: None, **options)

    with pytest.raises(PNIError, match=r"mvtec: cannot be downloaded .*mvtec-ad"):
        prepare("mvtec")
    with pytest.raises(PNIError, match="nothing to download: choose one of mvtec, btad, visa, mtd"):
        prepare("folder")
    with pytest.raises(PNIError, match=r"no.zip: does not exist"):
        prepare("visa", archive=tmp_path / "no.zip")
    wrong = pack(mvtec(tmp_path / "src"), tmp_path / "a.zip")
    with pytest.raises(PNIError, match="SHA-256"):
        prepare("visa", archive=wrong, sha256="0" * 64)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("keep me")
    with pytest.raises(PNIError, match="full: is not empty but holds no mtd data"):
        prepare("mtd", tmp_path / "full", archive=wrong)
    assert (tmp_path / "full/mine.txt").read_text() == "keep me"
    with pytest.raises(PNIError, match=r"a.zip: holds no visa data: choose another archive"):
        prepare("visa", archive=wrong)
    assert not (tmp_path / "new").exists()


def zip_with(name: str, mode: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        member = zipfile.ZipInfo(name)
        member.external_attr = mode << 16
        out.writestr("fine.txt", "x")
        out.writestr(member, "/etc/passwd")
    return buffer.getvalue()


def tar_with(member: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        out.addfile(tarfile.TarInfo("fine.txt"))
        out.addfile(member, io.BytesIO(b"x" * member.size))
    return buffer.getvalue()


def tar_member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return tar_with(member)


@pytest.mark.parametrize(
    "content",
    [
        zip_with("../evil.txt"),
        zip_with("/tmp/evil.txt"),
        zip_with("a/../../evil.txt"),
        zip_with("C:/evil.txt"),
        zip_with("..\\evil.txt"),
        zip_with("link", 0o120777),
        tar_member("../evil.txt"),
        tar_member("/tmp/evil.txt"),
        tar_member("link", tarfile.SYMTYPE, "../../outside"),
        tar_member("link", tarfile.LNKTYPE, "../outside"),
        tar_member("pipe", tarfile.FIFOTYPE),
    ],
)
def test_unsafe_archives_leave_nothing(tmp_path, content):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a").write_bytes(content)
    with pytest.raises(PNIError, match="unsafe member") as caught:
        extract(tmp_path / "in/a", tmp_path / "out/data", progress=False)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "in", "out"]


@pytest.mark.parametrize("content", [b"", b"hello", tar_member("x")[:700], zip_with("x")[:-30]])
def test_damaged_archives_leave_nothing(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(PNIError, match="download it again"):
        extract(tmp_path / "a", tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_archive_larger_than_the_disk(tmp_path, monkeypatch):
    import shutil

    (tmp_path / "a").write_bytes(zip_with("x"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(PNIError, match="make room"):
        extract(tmp_path / "a", tmp_path / "out", progress=False)


def test_sources_are_complete():
    for name, source in SOURCES.items():
        assert source.title and source.licence and source.page.startswith("https://")
        assert name == "mvtec" or source.url.startswith("https://")
        assert source.sha256 is None or len(source.sha256) == 64
