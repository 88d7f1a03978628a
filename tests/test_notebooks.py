"""Every notebook runs to its end at smoke size, through the runner that the command line uses."""

from pathlib import Path

import pytest

from pnilib.runner import parameter_names, run_notebook, summary_text

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_at_smoke_size(path, tmp_path):
    wanted = {"profile": "smoke", "device": "cpu", "out_dir": str(tmp_path / "work")}
    own = {name: value for name, value in wanted.items() if name in parameter_names(path)}
    result = run_notebook(path, tmp_path / "out", own, timeout_s=600, progress=False)
    assert result.ok, summary_text([result])
