"""The benchmark runs, on hardly any work, and its table says what was measured. No figure is judged here."""

import json
import sys
from dataclasses import replace

import pytest

from benchmarks import evaluation


def test_benchmark(tmp_path, monkeypatch, capsys):
    (digits,) = evaluation.cases("cpu", quick=True)
    monkeypatch.setattr(evaluation, "cases", lambda device, quick: [replace(digits, images=24, batch=12)])
    monkeypatch.setattr(sys, "argv", ["evaluation", "--quick", "--most", "2", "--threads", "1", "--out", str(tmp_path)])
    evaluation.main()
    result = json.loads((tmp_path / "evaluation.json").read_text())
    (case,) = result["cases"]
    assert case["features"] == 64 and [row["calls"] for row in case["rows"]] == [1, 2]
    assert all(row[name] > 0 for row in case["rows"] for name in ("sampling", "features", "moments", "further"))
    assert set(case["once"]) == {"Fréchet distance", "further metrics"}
    text = (tmp_path / "evaluation.md").read_text()
    assert text in capsys.readouterr().out and "nfm-digits: 702,753 parameters, 64 features" in text


def test_overhead_is_time_beside_time():
    rows = [{"sampling": 1.0, "features": 0.1, "moments": 0.05}, {"sampling": 3.0, "features": 0.1, "moments": 0.15}]
    assert evaluation.overhead(rows, "features", "moments") == pytest.approx(0.1)
    assert [case.recipe for case in evaluation.cases("cpu", quick=False)] == ["nfm-digits", "nfm-cifar10"]


def test_calls_that_were_left_out_cost_as_much_as_those_that_were_made():
    rows = [
        {"calls": 1, "sampling": 1.0, "features": 0.2, "moments": 0.1},
        {"calls": 3, "sampling": 3.0, "features": 0.2, "moments": 0.1},
    ]
    assert evaluation.projected(rows, []) == pytest.approx(evaluation.overhead(rows, "features", "moments"))
    assert evaluation.projected(rows, [8, 12]) == pytest.approx(4 * 0.3 / 24)
