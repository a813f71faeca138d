"""Requests for samples: what a network cannot do is refused before anything is read."""

from contextlib import nullcontext

import pytest

from flows.views.sample_request import SampleRequest, check_guidance_acts
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


ALONE = ["student.coupling=independent", *(f"{name}=null" for name in ("teacher", "bank", "pairs", "onestep"))]
ALONE += ["evaluation.onestep=[]"]
GUIDED = ["student.objective={kind: meanflow, guidance: 3}", "evaluation.student=[{solver: jump, nfe: [1]}]"]


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        (GUIDED, {"guidance": 3.0}),  # guided already
        (["student.path={kind: vp}"], {"solver": "rk4"}),
        (["student.path={kind: vp}"], {"solver": "heun"}),
        (["student.path={kind: vp}"], {"solver": "heun", "nfe": 4}),
    ],
)
def test_what_a_recipe_may_not_ask_for_is_refused_here_too(tmp_path, monkeypatch, settings, asked):
    monkeypatch.setenv("FLOWCTL_HOME", str(tmp_path))
    recipe = load("nfm-digits", [*ALONE, *settings, "student.label_drop=0.1"])
    rest = {"steps": None, "solver": None, "guidance": None, "class_": None, "seed": 0, "count": 1}
    with pytest.raises(UsageError):
        draw(recipe, SampleRequest("student", **{**rest, **asked}))
    with pytest.raises(MissingError):
        draw(recipe, SampleRequest("student", **rest))


@pytest.mark.parametrize(
    ("model", "settings", "guidance", "refused"),
    [
        ("teacher", [], 2.0, True),
        ("teacher", [], 0.0, False),
        ("teacher", ["teacher.attention_temperature=1.5", "teacher.guidance=1"], 2.0, False),
        ("student", [], 2.0, True),
        ("student", [], 1.0, False),
        ("student", [], None, False),
    ],
)
def test_guidance_needs_classes_or_something_else_to_act_through(model, settings, guidance, refused):
    recipe = load("nfm-digits", settings)
    request = SampleRequest(model, None, None, None, guidance, 0, 1)
    with pytest.raises(UsageError) if refused else nullcontext():
        check_guidance_acts(request, recipe)
