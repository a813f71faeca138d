"""The recipes that benchmarks put together: each one is valid and differs from the others."""

from pathlib import Path

import pytest

from benchmarks import distillation, equal_compute, floor, guidance, one_call
from benchmarks.matrix import run_name
from pipeline.engine.dag import build
from pipeline.recipe.load import load

SEED = 3


@pytest.fixture(params=["nfm-digits", "a file"])
def base(request, tmp_path):
    if request.param != "a file":
        return request.param
    (tmp_path / "my recipe.v2.yaml").write_text("extends: nfm-digits\n")
    return str(tmp_path / "my recipe.v2.yaml")


def fingerprints(recipes):
    return [build(recipe)["evaluation"].fingerprint for recipe in recipes]


def test_every_knob_of_the_floor_is_a_recipe(base):
    recipes = [load(base, floor.rules(base, knob, SEED, ["evaluation.samples=64"])) for knob in floor.knobs(base)]
    assert all(recipe.seed == SEED and recipe.evaluation.samples == 64 for recipe in recipes)
    for values in (fingerprints(recipes), [recipe.name for recipe in recipes]):
        assert len(set(values)) == len(recipes)


def test_every_coupling_and_method_of_one_call_is_a_recipe(base):
    rows = [(coupling, method) for coupling in one_call.COUPLINGS for method in one_call.METHODS]
    recipes = [load(base, one_call.rules(base, *row, SEED, [])) for row in rows]
    for values in (fingerprints(recipes), [recipe.name for recipe in recipes]):
        assert len(set(values)) == len(rows)


@pytest.mark.slow
def test_at_the_same_compute_every_coupling_has_all_of_nfm_s_flops():
    rows = [equal_compute.rules("nfm-digits", coupling, SEED, []) for coupling in equal_compute.COUPLINGS]
    recipes = [load("nfm-digits", row) for row in rows]
    every = [sum(equal_compute.flops(recipe).values()) for recipe in recipes]
    assert every == pytest.approx([every[0]] * len(every), rel=0.01)  # of whole batches
    base = load("nfm-digits").student.training.images
    assert all(recipe.student.training.images > 1.4 * base for recipe in recipes[1:])
    assert recipes[0].student.training.images == base
    for values in (fingerprints(recipes), [recipe.name for recipe in recipes]):
        assert len(set(values)) == len(recipes)


def test_every_coupling_under_guidance_is_a_recipe(base):
    recipes = [load(base, guidance.rules(base, coupling, ["1", "1.5"], SEED, [])) for coupling in guidance.COUPLINGS]
    for values in (fingerprints(recipes), [recipe.name for recipe in recipes]):
        assert len(set(values)) == len(recipes)
    assert all([how.guidance for how in recipe.evaluation.student] == [1, 1.5] for recipe in recipes)


def test_every_knob_of_distillation_is_a_recipe_of_one_student(base):
    recipes = {knob: load(base, distillation.rules(base, "ot", knob, SEED, [])) for knob in distillation.knobs(base)}
    for values in (fingerprints(recipes.values()), [recipe.name for recipe in recipes.values()]):
        assert len(set(values)) == len(recipes)
    students = {knob: build(recipe)["student"].fingerprint for knob, recipe in recipes.items()}
    assert {knob for knob, value in students.items() if value != students["baseline"]} == {"student-twice"}


def test_a_name_holds_what_a_recipes_name_may_hold():
    assert run_name("nfm-digits", "soften-0.4") == "nfm-digits-soften-0-4"
    assert run_name(str(Path("here") / "a b.yaml"), "x=1,y") == "a-b-x-1-y"
