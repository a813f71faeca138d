"""The Python of the docs runs from its first line to its last, on a recipe of a size of seconds."""

from __future__ import annotations

import re

import numpy as np
import pytest

import flowctl
from tests.flows.conftest import ROOT


def execute(page: str) -> dict:
    """The names that the first block of Python of a page leaves."""
    block = re.search(r"^```python\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL)
    assert block is not None, page
    names: dict = {"__name__": "__main__"}
    exec(compile(block[1], page, "exec"), names)
    return names


@pytest.fixture
def small(trained, tmp_path, monkeypatch):
    """`flowctl.load` reads what it is asked for, and gives the trained recipe. What it was asked for, in order."""
    load, asked = flowctl.load, []

    def give(recipe, **changes):
        asked.append(load(recipe, **changes).settings)
        return trained

    monkeypatch.setattr(flowctl, "load", give)
    monkeypatch.chdir(tmp_path)
    return asked


def test_the_page_of_python(small):
    names = execute("python.md")
    assert names["images"].shape == (64, 8, 8, 1) and [settings.student.training.lr for settings in small] == [1e-3]


def test_the_likelihood_of_a_student(small):
    names = execute("maximum-likelihood.md")
    bits, result = names["bits"], names["result"]
    assert bits.images == len(result.log_density) == 64 and [settings.name for settings in small] == ["nfm-digits"]
    assert np.isfinite([bits.mean, bits.standard_error]).all() and 0 < bits.probe_error < bits.standard_error
