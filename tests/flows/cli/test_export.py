"""`export` as a command: what it hands over, and what it refuses before any time is spent."""

import pytest

from storage.errors import MissingError, UsageError
from tests.flows.faults import fault


@pytest.fixture
def exported(monkeypatch):
    """What `export` would be called with."""
    seen = {}

    def export(subject, out, onnx, force, device, batch, writing):
        writing("network.onnx")
        seen.update(subject=subject, out=out, onnx=onnx, force=force, device=str(device), batch=batch)

    monkeypatch.setattr("pipeline.export.export", export)
    return seen


def test_export_hands_over_what_is_asked(flowctl, finished, tiny, exported, tmp_path):
    result = flowctl(
        "export",
        tiny,
        "--out",
        tmp_path / "out",
        "--ema",
        "power-0.1",
        "--onnx",
        "--force",
        "--set",
        "compute.device=cpu",
    )
    assert result.exit_code == 0, result.output
    assert str(tmp_path / "out" / "README.md") in result.stdout and "network.onnx" in result.stderr
    subject = exported.pop("subject")
    assert exported == {"out": tmp_path / "out", "onnx": True, "force": True, "device": "cpu", "batch": 512}
    assert (subject.recipe, subject.model, subject.average) == ("tiny", "student", "power-0.1")
    assert list(subject.artifacts) == list(finished.nodes) and list(subject.lineage) == [
        "data",
        "teacher",
        "bank",
        "student",
    ]
    assert [sweep.nfe for sweep in subject.sweeps] == [(1, 2)]


def test_the_first_average_may_be_called_by_its_name(flowctl, finished, tiny, exported, tmp_path):
    words = ("--out", tmp_path / "out", "--ema", "half-life-4", "--model", "teacher")
    assert flowctl("export", tiny, *words).exit_code == 0
    assert (exported["subject"].average, exported["subject"].model) == (None, "teacher")


def test_export_needs_a_finished_network(flowctl, home, tiny, exported, tmp_path):
    error = fault(flowctl("export", tiny, "--out", tmp_path / "out"))
    assert type(error) is MissingError and f"flowctl run {tiny} --until student" in error.remedy
    error = fault(flowctl("export", tiny, "--out", tmp_path / "out", "--model", "onestep"))
    assert type(error) is UsageError and error.value == "onestep" and "teacher, student" in error.remedy
    assert not exported
