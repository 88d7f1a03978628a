"""The explorer in a real browser: headless Chromium drives JupyterLab and the page of `pni explore`.

Skipped, with the reason, where Chromium is missing; `make browser-test` installs it.  PNILIB_SCREENSHOTS=FOLDER keeps
what the browser saw.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import psutil
import pytest
from tiny_run import CATEGORIES, ODD, tiny_store  # noqa: F401

from pnilib.apps.explore import Category, Exploration, open_exploration
from pnilib.apps.explore.figures import draw_image
from pnilib.apps.explore.maps import features_of, normal_level
from pnilib.apps.explore.notes import Notes
from pnilib.apps.explore.samples import counts, default_threshold, samples
from pnilib.apps.explore.words import sentence
from pnilib.detector.explain import cell_at

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: `make browser-test` installs it")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[dev]")

WAIT = 90_000
"""ms, for a loaded machine; nothing waits longer than it must."""
sync_api.expect.set_options(timeout=WAIT)
KEY = f"mvtec/{CATEGORIES[1]}"
IDLE = 15
"""s, after which the server here ends a kernel without a page; longer than a page takes to connect."""
START = f"""
from pnilib.apps.cli import main
from pnilib.apps.explore import serve
serve.IDLE, serve.CHECK = {IDLE}, 1
main()
"""


@pytest.fixture
def page() -> Iterator["sync_api.Page"]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1300, "height": 1300})
        page.set_default_timeout(WAIT)
        page.errors, page.asked = [], []
        page.on("pageerror", lambda fault: page.errors.append(f"{fault} {fault.stack}"))
        page.context.on("request", lambda request: page.asked.append(request.url))
        page.on("websocket", lambda socket: page.asked.append(socket.url))
        yield page
        shot(page, "last")
        browser.close()


@contextmanager
def served(*command: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A server in a process group of its own, stopped at the end; its words are in folder/server.log."""
    with open(folder / "server.log", "w") as log:
        found = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder, start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])},
        )  # fmt: skip
        try:
            yield found
        finally:
            os.killpg(found.pid, signal.SIGINT)
            try:
                found.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(found.pid, signal.SIGKILL)
                found.wait()
            assert found.stdout is not None
            found.stdout.close()


@contextmanager
def explorer_page(run: Path, folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`pni explore`; yields the address that it prints, once somebody listens there, and the server."""
    command = (sys.executable, "-c", START, "explore", str(run), "--no-browser")
    with served(*command, folder=folder) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/\?token=\w+", line)
        assert found, (line, (folder / "server.log").read_text())
        listening(int(found[1]))
        yield found[0], server


def listening(port: int) -> None:
    for _ in range(WAIT // 100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"nobody listens on port {port}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def shot(page: "sync_api.Page", name: str) -> None:
    if (folder := os.environ.get("PNILIB_SCREENSHOTS")) and not page.is_closed():
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def drive(page: "sync_api.Page", run: Path, name: str) -> str:
    """Everything a reader does; returns the image whose note was saved."""
    category = open_exploration(run).category(KEY)
    result = category.results["E"]
    page.locator(".pni-card").first.wait_for()
    shot(page, f"{name}-1-samples")
    page.locator(".pni-result select").select_option("E")
    page.locator(".pni-category select").select_option(KEY)
    fp, fn = (int(result.metric(which)) for which in ("fp", "fn"))
    told = page.locator(".pni-counts .pni-words")
    sync_api.expect(told).to_contain_text(f"FP {fp}  FN {fn}")
    move_threshold(page, run, category)
    page.get_by_role("button", name="F1-optimal (test)").click()
    sync_api.expect(told).to_contain_text(f"FP {fp}  FN {fn}")

    page.locator(".pni-outcomes select").select_option("false negative")
    cards = page.locator(".pni-samples .pni-card")
    sync_api.expect(cards).to_have_count(fn)
    assert all("\nfalse negative\n" in (card.get_attribute("title") or "") for card in cards.all())
    shot(page, f"{name}-2-false-negatives")
    table = samples(open_exploration(run / "mvtec" / CATEGORIES[1].replace(" ", "_")), "E")
    missed = table[table["outcome"] == "false negative"].iloc[0]
    cards.first.click()
    words = page.locator(".pni-panels .pni-words")
    sync_api.expect(words).to_contain_text(str(missed["image"]))
    sync_api.expect(words).to_contain_text(f"{missed['score']:.5g}")
    zoom_in_and_back(page)
    ask_pixel(page, category, int(missed["index"]), name)

    page.locator(".pni-note textarea").fill('is <b>this</b> "a" défaut?')  # saved without a button
    sync_api.expect(page.locator(".pni-note-said")).to_contain_text("saved to notes.csv")
    assert Notes(run / "notes.csv").of(KEY, str(missed["image"])).text == 'is <b>this</b> "a" défaut?'

    page.get_by_text("Compare", exact=True).click()
    sync_api.expect(page.locator(".pni-sides")).to_contain_text("now right that were wrong")
    page.locator(".pni-compare img").wait_for()
    shot(page, f"{name}-4-compare")
    assert page.errors == []
    return str(missed["image"])


def move_threshold(page: "sync_api.Page", run: Path, category: Category) -> None:
    """To the right end: nobody is called defective; to the left: everybody; typed: as `samples` counts there."""
    counted, picture = page.locator(".pni-counts .pni-words"), page.locator(".pni-counts img")
    before = picture.get_attribute("src")
    page.locator(".pni-threshold .noUi-handle").focus()
    page.keyboard.press("End")
    sync_api.expect(counted).to_contain_text(f"TP 0  FP 0  FN {int((category.labels == 1).sum())}")
    sync_api.expect(picture).not_to_have_attribute("src", before)  # and the picture follows
    page.keyboard.press("Home")
    sync_api.expect(counted).to_contain_text("FN 0")
    middle = round(float(category.results["E"].table["score"].median()), 3)
    page.locator(".pni-exact input").fill(f"{middle}".replace(".", ","))  # a decimal comma
    page.keyboard.press("Enter")
    found = counts(samples(open_exploration(run / "mvtec" / CATEGORIES[1].replace(" ", "_")), "E", {KEY: middle}))
    sync_api.expect(counted).to_contain_text(f"TP {found.tp}  FP {found.fp}  FN {found.fn}")


def zoom_in_and_back(page: "sync_api.Page") -> None:
    """The wheel and a drag redraw the panels, a button shows the whole image again."""
    picture = page.locator(".pni-panels img")
    picture.scroll_into_view_if_needed()
    box = picture.bounding_box()
    assert box is not None
    x, y = box["x"] + 0.1 * box["width"], box["y"] + 0.25 * box["height"]
    seen = [picture.get_attribute("src")]
    for turn in (lambda: page.mouse.wheel(0, -100), lambda: drag(page, x, y), page.get_by_text("whole image").click):
        page.mouse.move(x, y)
        turn()
        sync_api.expect(picture).not_to_have_attribute("src", seen[-1] or "")
        seen.append(picture.get_attribute("src"))
    assert page.locator(".pni-answer .pni-words").inner_text().startswith("click on a pixel"), "none of it was a click"


def drag(page: "sync_api.Page", x: float, y: float) -> None:
    page.mouse.down()
    page.mouse.move(x + 30, y + 20)
    page.mouse.up()


def ask_pixel(page: "sync_api.Page", category: Category, i: int, name: str) -> None:
    """Click in the image; the sentence is that of the pixel that was hit."""
    picture = page.locator(".pni-panels img")
    picture.scroll_into_view_if_needed()
    box = picture.bounding_box()
    assert box is not None
    view = draw_image(Exploration(Path(), {KEY: category}), KEY, i, ["E", "A", "B", "position", "PNI"])
    ax = view.pixels[0].get_position()
    x, y = ax.x0 + 0.4 * ax.width, 1 - ax.y0 - ax.height + 0.6 * ax.height
    page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
    said = page.locator(".pni-answer .pni-words")
    sync_api.expect(said).to_contain_text("this patch scores")
    where = re.search(r"row (\d+), column (\d+)", said.inner_text())
    assert where
    row, column = int(where[1]), int(where[2])
    result, size = category.results["E"], category.geometry.crop
    assert abs(row - 0.6 * size) < 2 and abs(column - 0.4 * size) < 2
    model = category.model(result)
    features = features_of(model, category, i)
    cell = cell_at(row, column, size, (features.shape[0], features.shape[1]))
    assert result.maps is not None
    found = model.explain_cell(features, cell, result.config)
    value, level = float(result.maps[i, row, column]), normal_level(category, "E")
    assert f"\n{sentence(found, value, default_threshold(result), level)}\n" in said.inner_text()
    shot(page, f"{name}-3-pixel")


def finds_note(page: "sync_api.Page", image: str) -> None:
    """After a reload: the image, found by its name, carries the note."""
    page.locator(".pni-card").first.wait_for()
    page.locator(".pni-category select").select_option(KEY)
    page.locator(".pni-text input").fill(image.split("/", 1)[-1])
    card = page.locator(".pni-samples .pni-card")
    sync_api.expect(card).to_have_count(1)
    card.click()
    page.locator(".pni-panels img").wait_for()
    sync_api.expect(page.locator(".pni-note textarea")).to_have_value('is <b>this</b> "a" défaut?')


@pytest.fixture
def run(tiny_store: Path, tmp_path: Path) -> Path:  # noqa: F811
    """A copy, as notes are written into it."""
    return Path(shutil.copytree(tiny_store, tmp_path / "store"))


def test_page(page: "sync_api.Page", run: Path, tmp_path: Path) -> None:
    """All that a reader does: nobody but the server is asked for anything, and kernels end with their pages."""
    with explorer_page(run, tmp_path) as (url, server):
        page.goto(url)
        image = drive(page, run, "page")
        for _ in range(3):
            page.reload()
            page.locator(".pni-card").first.wait_for()
        kernels(server, 1)
        finds_note(page, image)
        shows_odd_names(page)
        takes_away(page)
        page.wait_for_timeout(1000 * (IDLE + 3))  # a reader who only looks
        kernels(server, 1)
        page.get_by_role("button", name="show all").click()
        sync_api.expect(page.locator(".pni-sheet")).to_contain_text("of 8 samples")
        reads_no_file(url)
        server_s = re.compile(rf"(blob:)?(http|ws)://127\.0\.0\.1:{url.split(':')[2].split('/')[0]}/|data:")
        assert len(page.asked) > 20 and [one for one in page.asked if not server_s.match(one)] == []
        assert page.errors == []
        page.close()  # as in a crash: without a word to the server
        kernels(server, 0)


def kernels(server: subprocess.Popen[str], n: int) -> None:
    """Of a server, in the end."""
    for _ in range(WAIT // 1000):
        children = psutil.Process(server.pid).children(recursive=True)
        found = [child.pid for child in children if any("ipykernel" in word for word in cmdline(child))]
        if len(found) == n:
            return
        time.sleep(1)
    raise AssertionError(f"{len(found)} kernels, not {n}")


def cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it has just ended
        return []


def takes_away(page: "sync_api.Page") -> None:
    """What is saved comes from the page itself, which goes on living."""
    page.get_by_text("Samples", exact=True).click()
    for button, name in (("view as PNG", "view.png"), ("selection as HTML", "selection.html")):
        page.get_by_role("button", name=button).click()
        link = page.get_by_text(f"save {name}")
        with page.expect_download() as download:
            link.click()
        assert download.value.suggested_filename == name
        blob = Path(download.value.path()).read_bytes()
        if name == "view.png":
            assert blob.startswith(b"\x89PNG")
        else:
            assert not re.search(rb"https?://|src=.(?!data:)", blob)


def shows_odd_names(page: "sync_api.Page") -> None:
    """Quotes, brackets and foreign letters are shown as they are, and are no HTML."""
    page.get_by_text("Samples", exact=True).click()
    page.get_by_role("button", name="show all").click()
    card = page.locator(".pni-samples .pni-card")
    sync_api.expect(card).to_have_count(8)
    page.locator(".pni-text input").fill(ODD)
    sync_api.expect(card).to_have_count(1)
    assert ODD in (card.get_attribute("aria-label") or "")
    card.press("Enter")  # by the keyboard
    sync_api.expect(page.locator(".pni-panels .pni-words")).to_contain_text(ODD)
    assert page.locator(".pni-words *").count() == 0


def reads_no_file(url: str) -> None:
    """Neither the page's own notebook nor anything else; nothing at all without the token."""
    base, token = url.split("/?")
    for path in ("explorer.ipynb", "notes.csv", "../../etc/passwd", "..%2f..%2f..%2fetc%2fpasswd", "/etc/passwd"):
        assert status(f"{base}/voila/files/{path}?{token}") in (403, 404)
    assert status(base + "/") == 403


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return 403 if "/login" in answer.geturl() else int(answer.status)
    except urllib.error.HTTPError as fault:
        with fault:
            return fault.code


def test_jupyterlab(page: "sync_api.Page", run: Path, tmp_path: Path) -> None:
    cell = f"from pnilib.apps.explore.widgets import explore\nexplore({str(run)!r})"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    place = tmp_path / "lab"
    place.mkdir()
    nbformat.write(notebook, place / "explorer.ipynb")
    port = free_port()
    settings = tmp_path / "settings"
    news = settings / "@jupyterlab" / "apputils-extension"
    news.mkdir(parents=True)
    (news / "notification.jupyterlab-settings").write_text(json.dumps({"fetchNews": "false"}))
    command = (
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--port-retries=0",
        "--IdentityProvider.token=secret", f"--ServerApp.root_dir={place}",
        f"--LabApp.user_settings_dir={settings}", f"--LabApp.workspaces_dir={tmp_path / 'workspaces'}",
    )  # fmt: skip
    with served(*command, folder=tmp_path):
        listening(port)
        page.goto(f"http://127.0.0.1:{port}/lab/tree/explorer.ipynb?token=secret")
        run_cells(page)
        image = drive(page, run, "lab")
        page.reload()
        run_cells(page)
        finds_note(page, image)


def run_cells(page: "sync_api.Page") -> None:
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    page.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Shift+Enter")
