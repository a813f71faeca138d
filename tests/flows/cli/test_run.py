"""`run`: the smoke test, and what is refused before the first stage."""

import pytest
import torch

from pipeline.engine.plan import plan
from storage.errors import DataError, RecipeError, StageFailed, UsageError
from tests.flows.faults import fault


def test_a_smoke_test_runs_every_stage_and_removes_its_store(flowctl, home, tiny):
    result = flowctl("run", tiny, "--smoke-test")
    assert result.exit_code == 0, result.output
    assert "data, reference, teacher, bank, student, evaluation, report" in result.stdout
    lines = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines()[2:]}
    assert lines["teacher"][0] == "7" and lines["all"][-1] == "estimated"
    assert result.stderr.count(": run …") == 7
    assert not home.exists()


def test_a_failed_smoke_test_is_a_failed_stage(flowctl, tiny, monkeypatch):
    monkeypatch.setenv("FAKES", '{"student": {"fail": "ValueError"}}')
    result = flowctl("run", tiny, "--smoke-test")
    assert isinstance(fault(result), StageFailed) and "student" in result.stderr


@pytest.mark.parametrize("words", [("--force", "teacher"), ("--jobs", "2"), ("--remote", "s3://bucket/x")])
def test_a_smoke_test_takes_nothing_that_it_ignores(flowctl, home, tiny, words):
    assert isinstance(fault(flowctl("run", tiny, "--smoke-test", *words)), UsageError) and not home.exists()


def test_an_absent_device_is_refused_before_the_images_are_read(flowctl, home, tiny, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = flowctl("run", tiny, "--set", "compute.device=cuda")
    assert isinstance(fault(result), RecipeError) and not list(home.glob("artifacts/*"))


@pytest.mark.parametrize(
    "change",
    [
        "onestep.loss={kind: lpips-huber, network: vgg, features: FILE, linear: FILE}",
        "reference={extractor: inception, weights: FILE}",
        "reference={extractor: inception, weights: /nowhere/inception.pth}",
    ],
)
def test_weights_that_a_later_stage_cannot_read_are_refused_before_the_images_are_read(flowctl, home, tmp_path, change):
    """The last stage would otherwise fail when all before it is done."""
    file = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(2)}, file)
    result = flowctl("run", "nfm-digits", "--set", change.replace("FILE", str(file)))
    assert isinstance(fault(result), DataError) and not list(home.glob("artifacts/*"))


@pytest.mark.parametrize(
    "words",
    [
        ("run", "RECIPE", "--jobs", "2"),
        ("plan", "RECIPE", "--json", "--dag"),
        ("show", "--schema", "RECIPE"),
        ("show", "--reference", "--set", "seed=1"),
        ("show", "--schema", "--reference"),
        ("bank", "inspect", "BANK", "--set", "seed=1"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(flowctl, finished, tiny, words):
    names = {"RECIPE": tiny, "BANK": finished.nodes["bank"].fingerprint[:12]}
    assert isinstance(fault(flowctl(*(names.get(word, word) for word in words))), UsageError)


@pytest.mark.parametrize("words", [(), ("--set", "seed=0,1")])
def test_a_force_that_is_refused_is_not_remembered(flowctl, finished, tiny, monkeypatch, words):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = flowctl("run", tiny, "--set", "compute.device=cuda", *words, "--force", "teacher")
    assert isinstance(fault(result), RecipeError)
    assert {step.action for step in plan(finished.nodes, finished.store)} == {"reuse"}
