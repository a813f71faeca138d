"""The notebooks of the docs run from their first cell to their last, on a recipe of a size of seconds."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from tests.flows.conftest import ROOT, TINY_CHANGES

DOCS = ROOT / "docs"
NOTEBOOKS = sorted(DOCS.glob("*.ipynb"))
SIZES = {"CHANGES": TINY_CHANGES, "STEPS": 20, "BATCH": 32}  # in place of those in the cell tagged `parameters`


def cells(notebook: Path) -> list[dict]:
    return [cell for cell in json.loads(notebook.read_bytes())["cells"] if cell["cell_type"] == "code"]


def execute(notebook: Path) -> dict:
    """The names that its cells leave. Their values are not shown."""
    names: dict = {"__name__": "__main__"}
    for number, cell in enumerate(cells(notebook)):
        exec(compile("".join(cell["source"]), f"{notebook.name}, code cell {number}", "exec"), names)
        if "parameters" in cell["metadata"].get("tags", ()):
            names |= {name: value for name, value in SIZES.items() if name in names}
    return names


@pytest.fixture
def names(request, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    return execute(DOCS / request.param)


def test_they_are_committed_without_outputs():
    assert NOTEBOOKS
    for notebook in NOTEBOOKS:
        assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells(notebook))
        assert sum("parameters" in cell["metadata"].get("tags", ()) for cell in cells(notebook)) == 1


@pytest.mark.parametrize("names", ["own-student.ipynb"], indirect=True)
def test_a_student_of_your_own(names, tmp_path):
    assert len(names["losses"]) == 20 and np.isfinite(names["losses"]).all()
    written = np.load(tmp_path / "mine.npz")["arr_0"]
    assert written.shape == (500, 8, 8, 1) and written.dtype == np.uint8 and written.std() > 0


@pytest.mark.parametrize("names", ["reading-results.ipynb"], indirect=True)
def test_reading_results(names):
    assert set(names["chosen"]["model"]) == {"teacher", "student", "onestep"} and names["metric"] == "FD-pixels"
    assert names["held_out"] > 0


def test_every_notebook_is_run():
    assert [notebook.name for notebook in NOTEBOOKS] == ["own-student.ipynb", "reading-results.ipynb"]
