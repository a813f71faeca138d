"""Requests for samples: what a network cannot do is refused before anything is read."""

import pytest

from flows.views.sample_request import SampleRequest
from flows.views.samples import draw
from pipeline.recipe.load import load
from storage.errors import MissingError, UsageError

DISTILLED = ["onestep.mode=distil", "onestep.steps=2", "pairs.grid=uniform", "evaluation.onestep=[]"]


@pytest.mark.parametrize(
    ("model", "asked", "value"),
    [
        ("teacher", {"steps": 999, "solver": "rk4"}, "--steps 999 --solver rk4"),
        ("teacher", {"solver": "euler"}, "--solver euler"),
        ("onestep", {"steps": 3}, "--steps 3"),
        ("onestep", {"solver": "heun"}, "--solver heun"),
        ("onestep", {"guidance": 2.0}, "--guidance 2"),
        ("student", {"guidance": 0.0}, "--guidance 0 with student.label_drop 0"),
    ],
)
def test_what_a_network_has_no_use_for_or_never_learned_is_refused(tmp_path, monkeypatch, model, asked, value):
    monkeypatch.setenv("FLOWCTL_HOME", str(tmp_path))
    recipe = load("nfm-digits", [*DISTILLED, "student.label_drop=0"])
    allowed = {"onestep": {"steps": 2, "solver": "euler", "guidance": 1.0}, "teacher": {"guidance": 0.5}}
    rest = {"steps": None, "solver": None, "guidance": None, "class_": None, "seed": 0, "count": 1}
    with pytest.raises(UsageError) as raised:
        draw(recipe, SampleRequest(model, **{**rest, **asked}))
    assert raised.value.value == value
    with pytest.raises(MissingError):  # the request is valid, but nothing is trained
        draw(recipe, SampleRequest(model, **{**rest, **allowed.get(model, {})}))
