"""Whatever is typed comes back; nobody's note is lost; a file that cannot be read or written says so."""

import csv
import multiprocessing
import os
import threading
from pathlib import Path

import filelock
import pytest

from pnilib.apps.explore import notes as module
from pnilib.apps.explore.notes import LABELS, Note, Notes
from pnilib.errors import PNIError


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path / "new/notes.csv")


TEXTS = [
    "a scratch, at the rim", 'he said "dust"', "two\nlines\n", "carriage\rreturn", "dos\r\nline", "🔧 ü 漢字",
    "'; DROP <b>&amp;", '"', ",,,", "\\n \\", "=1+2", "\ttab", "nul\0byte", " spaces ", "0", "nan",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_comes_back(notes: Notes, text: str) -> None:
    notes.save("part", "before.png", "", "kept", Note())
    saved = notes.save("part", "a.png", "normal", text, Note())
    assert saved.text == text and saved.label == "normal" and saved.saved.endswith("+00:00")
    again = Notes(notes.file)
    assert again.of("part", "a.png") == saved and again.of("part", "before.png").text == "kept"
    assert again.save("part", "b.png", "", "more", Note()) == again.of("part", "b.png")
    assert again.of("part", "a.png") == saved and len(again.all()) == 3


@pytest.mark.parametrize(
    ("category", "image"), [("two parts", """a "b" 'c' <b>&$`ü.png"""), ("c,d", "e\nf.png"), ("x", "../../etc/passwd")]
)
def test_any_name_comes_back(notes: Notes, category: str, image: str, tmp_path: Path) -> None:
    saved = notes.save(category, image, "unsure", "", Note())
    assert Notes(notes.file).all() == {(category, image): saved}
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} <= {"notes.csv", "notes.csv.lock"}


def test_it_is_a_plain_table(notes: Notes) -> None:
    assert notes.all() == {} and not notes.file.exists()
    assert notes.of("part", "a.png") == Note()
    notes.save("part", "b.png", "defective", "x, y", Note())
    notes.save("part", "a.png", "", "z", Note())
    with open(notes.file, newline="", encoding="utf-8") as handle:
        rows = list(csv.reader(handle))
    assert rows[0] == ["category", "image", "label", "note", "saved"]
    assert [row[:4] for row in rows[1:]] == [["part", "a.png", "", "z"], ["part", "b.png", "defective", "x, y"]]


def test_changed_and_taken_away(notes: Notes) -> None:
    first = notes.save("part", "a.png", "normal", "one", Note())
    second = notes.save("part", "a.png", "", "two", first)
    assert notes.all() == {("part", "a.png"): second}
    assert notes.save("part", "a.png", "", "", second) == Note()
    assert notes.all() == {} and notes.of("part", "a.png") == Note()
    assert notes.save("part", "a.png", "", "", Note()) == Note()


def test_a_conflict_is_refused_and_nothing_is_lost(notes: Notes) -> None:
    shown = notes.save("part", "a.png", "", "first", Note())
    theirs = notes.save("part", "a.png", "defective", "theirs", shown)
    with pytest.raises(PNIError, match=r"a\.png: another explorer saved 'theirs' and label defective meanwhile"):
        notes.save("part", "a.png", "normal", "mine", shown)
    with pytest.raises(PNIError, match="meanwhile"):
        notes.save("part", "a.png", "", "", Note())
    assert notes.all() == {("part", "a.png"): theirs}
    assert notes.save("part", "a.png", "normal", "mine", notes.of("part", "a.png")).text == "mine"
    gone = notes.save("part", "a.png", "", "", notes.of("part", "a.png"))
    with pytest.raises(PNIError, match="another explorer saved an empty note meanwhile"):
        notes.save("part", "a.png", "", "mine", theirs)
    assert gone == Note()


def save_many(file: Path, who: str, n: int) -> None:
    for i in range(n):
        Notes(file).save("part", f"{who}{i}.png", "", f"{who} {i}", Note())


def test_two_explorers_at_once_in_threads(notes: Notes) -> None:
    each = [threading.Thread(target=save_many, args=(notes.file, who, 8)) for who in "abcd"]
    for thread in each:
        thread.start()
    for thread in each:
        thread.join()
    assert {text.text for text in notes.all().values()} == {f"{who} {i}" for who in "abcd" for i in range(8)}


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 and later; no thread runs here
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_two_explorers_at_once_in_processes(notes: Notes) -> None:
    context = multiprocessing.get_context("fork")
    each = [context.Process(target=save_many, args=(notes.file, who, 10)) for who in "abc"]
    for process in each:
        process.start()
    for process in each:
        process.join()
    assert [process.exitcode for process in each] == [0, 0, 0]
    assert {text.text for text in notes.all().values()} == {f"{who} {i}" for who in "abc" for i in range(10)}


def test_two_saves_of_one_note_at_once(notes: Notes) -> None:
    """Of explorers that saw the same, one saves and the others are told."""
    told: list[str] = []
    saved: list[str] = []
    start = threading.Barrier(4)

    def save(who: str) -> None:
        start.wait()
        try:
            saved.append(notes.save("part", "a.png", "", who, Note()).text)
        except PNIError as fault:
            told.append(str(fault))

    each = [threading.Thread(target=save, args=(who,)) for who in "abcd"]
    for thread in each:
        thread.start()
    for thread in each:
        thread.join()
    assert len(saved) == 1 and len(told) == 3 and notes.of("part", "a.png").text == saved[0]
    assert all(f"another explorer saved '{saved[0]}' meanwhile" in line for line in told)


# -- files that are not as they should be ------------------------------------------------------------

HEAD = "category,image,label,note,saved\n"


@pytest.mark.parametrize(
    ("blob", "why"),
    [
        (b"", "is no file of notes"),
        (b"image,note\na,b\n", "is no file of notes"),
        (HEAD.encode() + b"part,a.png,,text\n", "too few or too many fields"),
        (HEAD.encode() + b"part,a.png,,text,when,more\n", "too few or too many fields"),
        (HEAD.encode() + b'part,a.png,,"open\n', "cannot be read: move it away"),
        (HEAD.encode() + b"part,a.png,,\xff\xfe,when\n", "cannot be read: move it away"),
        (HEAD.encode() + b"part,a.png,broken,text,when\n", "label 'broken'"),
    ],
)
def test_a_damaged_file_is_left_as_it_is(tmp_path: Path, blob: bytes, why: str) -> None:
    file = tmp_path / "notes.csv"
    file.write_bytes(blob)
    with pytest.raises(PNIError, match=f"notes.csv: .*{why}"):
        Notes(file).all()
    with pytest.raises(PNIError, match=why):
        Notes(file).save("part", "a.png", "", "text", Note())
    assert file.read_bytes() == blob


def test_a_spreadsheet_s_copy_is_read(tmp_path: Path) -> None:
    """With a byte-order mark and DOS line ends."""
    file = tmp_path / "notes.csv"
    file.write_bytes(b"\xef\xbb\xbf" + HEAD.replace("\n", "\r\n").encode() + b"part,a.png,normal,dust,2026-01-01\r\n")
    assert Notes(file).all() == {("part", "a.png"): Note("normal", "dust", "2026-01-01")}


@pytest.mark.parametrize(("text", "why"), [("x" * 200_000, "characters: shorten it"), ("\ud800", "no text")])
def test_a_note_that_could_not_be_read_again_is_not_written(notes: Notes, text: str, why: str) -> None:
    kept = notes.save("part", "a.png", "", "kept", Note())
    with pytest.raises(PNIError, match=why):
        notes.save("part", "b.png", "", text, Note())
    assert notes.all() == {("part", "a.png"): kept}


def test_an_unknown_label_is_refused(notes: Notes) -> None:
    with pytest.raises(PNIError, match="label 'broken': choose one of normal, defective, unsure, or none"):
        notes.save("part", "a.png", "broken", "", Note())
    assert not notes.file.exists()
    for label in LABELS:
        assert notes.save("part", f"{label}.png", label, "x", Note()).label == label


def test_a_place_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PNIError, match="is a file: choose a folder"):
        Notes(tmp_path / "file/notes.csv").save("part", "a.png", "", "x", Note())

    def refuse(*args: object, **options: object) -> None:  # root may write anywhere
        raise PermissionError(13, "Permission denied")

    notes = Notes(tmp_path / "notes.csv")
    for place, name in ((filelock.FileLock, "acquire"), (module, "atomic_write")):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, refuse)
            with pytest.raises(PNIError, match=r"notes\.csv: no permission: choose another folder"):
                notes.save("part", "a.png", "", "x", Note())
    assert notes.all() == {}
    assert notes.save("part", "a.png", "", "x", Note()).text == "x"  # the lock was let go


def test_a_lock_that_is_held(notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT", 0.05)
    notes.save("part", "a.png", "", "x", Note())
    with (
        filelock.FileLock(f"{notes.file}.lock"),
        pytest.raises(PNIError, match="another explorer is saving: try again"),
    ):
        notes.save("part", "b.png", "", "y", Note())
    assert len(notes.all()) == 1
