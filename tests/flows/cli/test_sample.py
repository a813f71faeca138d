"""`sample`: the request that it hands to the sampler."""

import pytest

from flows.views.sample_request import SampleRequest
from storage.errors import MissingError, UsageError
from tests.flows.faults import fault


def test_sample_hands_over_its_options(flowctl, finished, tiny, monkeypatch, tmp_path):
    seen = {}
    monkeypatch.setattr("flows.views.samples.draw", lambda recipe, request, name: seen.update(request=request))
    monkeypatch.setattr("flows.views.sample_files.write", lambda out, *_: seen.update(out=out))
    options = [
        "--steps",
        "4",
        "--solver",
        "heun",
        "--class",
        "3",
        "--guidance",
        "1.5",
        "--seed",
        "9",
        "--count",
        "5",
        "--ema",
        "power-0.1",
    ]
    result = flowctl("sample", tiny, *options, "--out", tmp_path / "a.npz")
    assert result.exit_code == 0, result.output
    assert seen == {
        "request": SampleRequest("student", 4, "heun", "3", 1.5, 9, 5, "power-0.1"),
        "out": tmp_path / "a.npz",
    }


@pytest.mark.parametrize(
    ("words", "kind", "value"),
    [
        ((), MissingError, "no student of tiny"),
        (("--model", "onestep"), UsageError, "onestep"),
        (("--out", "x.gif"), UsageError, "x.gif"),
        (("--out", "x.npz", "--grid", "4"), UsageError, "x.npz"),
        (("--out", "/"), UsageError, "/"),  # a folder that is not empty
        (("--solver", "heum"), UsageError, "heum"),
    ],
)
def test_wrong_requests(flowctl, tiny, words, kind, value):
    error = fault(flowctl("sample", tiny, *words))
    assert type(error) is kind and error.value == value
