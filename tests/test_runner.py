"""The notebook runner: unknown names, failures, time limits, memory, and what it leaves behind."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from pnilib.apps.notebooks.runner import (
    NotebookResult,
    parameter_names,
    parse_parameters,
    run_all,
    run_notebook,
    strip_solutions,
    summary_text,
)
from pnilib.errors import PNIError

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def make(path: Path, *cells: str, parameters: str | None = "seed = 0\ndevice: str = 'cpu'") -> Path:
    """A notebook without kernel metadata; text cells start with '#md '."""
    notebook = nbformat.v4.new_notebook()
    if parameters is not None:
        notebook.cells.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    for source in cells:
        new = nbformat.v4.new_markdown_cell if source.startswith("#md ") else nbformat.v4.new_code_cell
        notebook.cells.append(new(source.removeprefix("#md ")))
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def outputs(path: Path) -> str:
    notebook = nbformat.read(path, as_version=4)
    return "".join(out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", []))


def plant_broken_kernel(folder: Path) -> None:
    """A kernel called python3 that points nowhere, as an abandoned environment leaves behind."""
    spec = {"argv": ["/nowhere/python", "-f", "{connection_file}"], "display_name": "x", "language": "python"}
    (folder / "kernels" / "python3").mkdir(parents=True)
    (folder / "kernels" / "python3" / "kernel.json").write_text(json.dumps(spec))


def test_parse_parameters_reads_yaml_scalars():
    pairs = ["a=1", "b=1.5", "c=true", "d=cpu", "e=", "f=1e-3", "g='1'", "h=x=y", "i=2024-01-02", "j=null"]
    values = parse_parameters(pairs)
    assert values == {
        "a": 1, "b": 1.5, "c": True, "d": "cpu", "e": None, "f": 0.001, "g": "1", "h": "x=y",
        "i": "2024-01-02", "j": None,
    }  # fmt: skip
    assert isinstance(values["a"], int) and isinstance(values["f"], float)


@pytest.mark.parametrize("pair", ["seed", "=1", "a-b=1", "a=[1, 2]", "a={b: 1}", "a='x", "a: 1"])
def test_parse_parameters_refuses(pair):
    with pytest.raises(PNIError, match="parameter"):
        parse_parameters([pair])


def test_parse_parameters_refuses_a_name_given_twice():
    with pytest.raises(PNIError, match="twice"):
        parse_parameters(["a=1", "a=2"])


def test_parameter_names(tmp_path):
    text = "# a comment\nprofile = 'demo'  # smoke, demo\nseed: int = 0\na = b = None\nprint(seed)\nx[0] = 1"
    assert parameter_names(make(tmp_path / "a.ipynb", parameters=text)) == ["profile", "seed", "a", "b"]
    assert parameter_names(make(tmp_path / "b.ipynb", parameters=None)) == []
    with pytest.raises(PNIError, match="parameters cell, line 1"):
        parameter_names(make(tmp_path / "c.ipynb", parameters="seed ="))


def test_runs_in_this_interpreter_with_the_given_values(tmp_path, monkeypatch):
    plant_broken_kernel(tmp_path / "jupyter")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    path = make(
        tmp_path / "nb" / "good.ipynb",
        "#md Mass $e^{-\\lambda d}$ and\n\n$$\\sum_c p(c) < 1$$",
        "import sys; print(sys.executable, seed, device)",
        f"from IPython.display import Image; import base64\nImage(base64.b64decode('{PNG}'))",
        "x = bytearray(400_000_000); import time; time.sleep(0.5)",
    )
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "x", "language": "python"}
    nbformat.write(notebook, path)
    source = path.read_bytes()
    result = run_notebook(path, tmp_path / "out", {"seed": 7}, timeout_s=100)
    assert result.ok and result.error is None and result.failing_cell is None
    assert result.name == "good" and result.parameters == {"seed": 7}
    assert result.peak_mb > 400, "the kernel's memory counts, not the worker's alone"
    assert outputs(tmp_path / "out" / "good.ipynb").split() == [sys.executable, "7", "cpu"]
    page = (tmp_path / "out" / "good.html").read_text()
    assert "<math" in page and "λ" in page.replace("&#x003BB;", "λ")
    assert "<script" not in page and 'src="http' not in page and PNG[:40] in page
    assert (tmp_path / "out" / "figures" / "good-01.png").read_bytes()[1:4] == b"PNG"
    left = {entry.name for entry in (tmp_path / "out").iterdir()}
    assert left == {"good.ipynb", "good.html", "figures"}
    assert str(tmp_path) not in (tmp_path / "out" / "good.ipynb").read_text(), "no path of this machine"
    assert path.read_bytes() == source


def test_unknown_names_are_refused_before_anything_runs(tmp_path):
    path = make(tmp_path / "nb" / "a.ipynb", "open('ran', 'w')")
    with pytest.raises(PNIError, match=r"a\.ipynb: there is no parameter 'sede': did you mean seed\?"):
        run_notebook(path, tmp_path / "out", {"sede": 1})
    with pytest.raises(PNIError, match="known: seed, device"):
        run_all([path], tmp_path / "out", {"zzzz": 1})
    bare = make(tmp_path / "nb" / "bare.ipynb", parameters=None)
    with pytest.raises(PNIError, match="known: none"):
        run_notebook(bare, tmp_path / "out", {"seed": 1})
    assert not (tmp_path / "out").exists()


def test_all_run_when_one_fails_and_the_summary_names_the_cell(tmp_path):
    bad = make(
        tmp_path / "nb" / "bad.ipynb",
        "#md text",
        "ok = 1",
        "\nvalue = 1 / (seed - 3)\nprint(value)",
        "later = 2",
    )
    good = make(tmp_path / "nb" / "good.ipynb", "print('reached')", parameters="category = 'wire'")
    dies = make(tmp_path / "nb" / "dies.ipynb", "import os; os._exit(3)")
    results = run_all([bad, dies, good], tmp_path / "out", {"seed": 3, "category": "cup"}, timeout_s=100)
    assert [result.ok for result in results] == [False, False, True]
    assert results[0].failing_cell == "cell 4: value = 1 / (seed - 3)"
    assert results[0].error == "ZeroDivisionError: division by zero"
    assert results[0].parameters == {"seed": 3} and results[2].parameters == {"category": "cup"}
    assert results[1].error == "the kernel died (out of memory?)"
    assert results[1].failing_cell == "cell 2: import os; os._exit(3)"
    assert "reached" in outputs(tmp_path / "out" / "good.ipynb")
    assert "ZeroDivisionError" in (tmp_path / "out" / "bad.html").read_text(), "the failed copy is kept"
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["ok"] is False and summary["n_notebooks"] == 3
    assert [entry["name"] for entry in summary["notebooks"]] == ["bad", "dies", "good"]
    assert summary["notebooks"][0]["error"] == results[0].error and summary["notebooks"][0]["peak_mb"] > 0
    text = summary_text(results)
    assert "FAILED bad" in text and "cell 4: value = 1 / (seed - 3)" in text
    assert "ZeroDivisionError: division by zero" in text
    assert text.splitlines()[-1] == "1 of 3 notebooks ran to the end; failed: bad, dies"


def test_a_time_limit_ends_the_notebook_its_kernel_and_their_children(tmp_path):
    pids = tmp_path / "pids"
    hang = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "time.sleep(600)"
    )
    path = make(tmp_path / "nb" / "hang.ipynb", "print('before')", hang)
    limit = 5.0
    result = run_notebook(path, tmp_path / "out", timeout_s=limit)
    while not pids.exists():  # a busy machine: the kernel had not started yet
        limit *= 2
        assert limit < 200
        result = run_notebook(path, tmp_path / "out", timeout_s=limit)
    assert not result.ok
    assert result.error == f"stopped after the time limit of {limit:g} s"
    assert result.failing_cell == "cell 3: import os, subprocess, sys, time"
    assert "before" in outputs(tmp_path / "out" / "hang.ipynb")
    assert not any(alive(int(pid)) for pid in pids.read_text().split())


def alive(pid: int) -> bool:
    for _ in range(50):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return False
        except psutil.NoSuchProcess:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_stopping_the_runner_leaves_no_process(tmp_path, stop):
    pids = tmp_path / "pids"
    source = f"import os, time\nopen({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n')\ntime.sleep(600)"
    paths = [make(tmp_path / "nb" / f"{name}.ipynb", source) for name in ("one", "two", "three")]
    code = """import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background hands it down as ignored
from pnilib.apps.notebooks.runner import run_all
run_all(sys.argv[2:], sys.argv[1], workers=2)"""
    command = [sys.executable, "-c", code, tmp_path / "out", *paths]
    runner = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for _ in range(1200):
        if pids.exists() and pids.read_text().count("\n") == 2:
            break
        time.sleep(0.1)
    family = psutil.Process(runner.pid).children(recursive=True)
    assert len(family) >= 4
    runner.send_signal(stop)
    _, stderr = runner.communicate(timeout=60)
    assert not any(alive(process.pid) for process in family)
    if stop == signal.SIGINT:
        assert stderr.strip().endswith("KeyboardInterrupt")
        assert not list((tmp_path / "out").glob(".*.ipynb"))
    assert pids.read_text().count("\n") == 2, "the third never started"


def test_bad_input_is_one_line(tmp_path):
    good = make(tmp_path / "nb" / "a.ipynb")
    (tmp_path / "text.ipynb").write_text("hello")
    (tmp_path / "json.ipynb").write_text("[]")
    for path, message in [
        (tmp_path / "absent.ipynb", "No such file"),
        (tmp_path / "text.ipynb", "not a Jupyter notebook"),
        (tmp_path / "json.ipynb", "not a Jupyter notebook"),
    ]:
        with pytest.raises(PNIError, match=message):
            run_notebook(path, tmp_path / "out")
    with pytest.raises(PNIError, match="holds the notebook itself"):
        run_notebook(good, tmp_path / "nb")
    with pytest.raises(PNIError, match="is a file: choose a folder"):
        run_notebook(good, tmp_path / "text.ipynb")
    with pytest.raises(PNIError, match="no notebook to run"):
        run_all([], tmp_path / "out")
    with pytest.raises(PNIError, match="two notebooks are called a"):
        run_all([good, make(tmp_path / "other" / "a.ipynb")], tmp_path / "out")


def test_summary_of_a_notebook_that_never_started():
    text = summary_text([NotebookResult("a", False, 0.1, 0.0, error="the notebook's process died")])
    assert "before its first cell" in text


def test_strip_solutions(tmp_path):
    path = make(tmp_path / "nb" / "a.ipynb", "#md Exercise", "answer = 42")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[2].metadata.tags = ["solution"]
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", text="old")]
    notebook.cells[0].execution_count = 5
    nbformat.write(notebook, path)
    written = strip_solutions(tmp_path / "nb", tmp_path / "student")
    assert written == [tmp_path / "student" / "a.ipynb"]
    student = nbformat.read(written[0], as_version=4)
    assert [cell.id for cell in student.cells] == [cell.id for cell in notebook.cells[:2]]
    assert student.cells[0].outputs == [] and student.cells[0].execution_count is None
    assert "answer = 42" not in written[0].read_text()  # a random cell id may hold a 42
    with pytest.raises(PNIError, match="overwrite"):
        strip_solutions(tmp_path / "nb", tmp_path / "nb" / ".." / "nb")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PNIError, match="holds no notebooks"):
        strip_solutions(tmp_path / "empty", tmp_path / "student")
