"""The evaluation's settings: products of lists, calls that can be made, and what is cached stays."""

import pytest
from pydantic import ValidationError

from pipeline.engine.dag import build
from pipeline.recipe.fingerprint import fingerprint_fields
from pipeline.recipe.load import load
from pipeline.recipe.sections import Evaluation, Sweep
from storage.errors import InputError, RecipeError


def evaluation(**fields):
    return Evaluation(**{"samples": 100, "student": [{"nfe": [2, 4]}], **fields})


def test_lists_stand_for_every_pair_of_their_values():
    asked = {"solver": "euler", "nfe": [2, 4], "guidance": [1, 1.5], "ema": [None, "power-0.05"]}
    made = evaluation(student=[asked, {"solver": "dopri5"}]).student
    assert made == (
        *(
            Sweep(solver="euler", nfe=(2, 4), guidance=guidance, ema=ema)
            for ema in (None, "power-0.05")
            for guidance in (1.0, 1.5)
        ),
        Sweep(solver="dopri5"),
    )
    assert evaluation(student=made).student == made


def test_a_product_is_the_sweeps_written_out():
    lists = load("nfm-digits", ["evaluation.student=[{nfe: [2], guidance: [1, 2]}]"])
    plain = load("nfm-digits", ["evaluation.student=[{nfe: [2]}, {nfe: [2], guidance: 2}]"])
    assert build(lists)["evaluation"].fingerprint == build(plain)["evaluation"].fingerprint


@pytest.mark.parametrize(
    "sweep",
    [
        {"nfe": [1, 2], "guidance": [1, 2]},
        {"nfe": [3], "solver": "midpoint"},
        {"nfe": [4], "solver": "rk4", "guidance": 2},
        {"nfe": [2], "guidance": []},
    ],
)
def test_calls_that_cannot_be_made_are_refused_before_anything_is(sweep):
    with pytest.raises(ValidationError):
        evaluation(student=[sweep])


@pytest.mark.parametrize(
    "sweeps",
    [
        [{"nfe": [1, 2]}, {"nfe": [2]}],
        [{"solver": "dopri5"}, {"solver": "dopri5", "grid": "quadratic"}],  # whose steps are its own
    ],
)
def test_a_sampler_that_is_listed_twice_is_refused(sweeps):
    """A cell of a table holds one number."""
    with pytest.raises(ValidationError):
        evaluation(student=sweeps)


def test_an_average_by_a_second_name_is_refused():
    averages = "student.training.averages=[{images: 2000}]"
    with pytest.raises(RecipeError):
        load("nfm-digits", ["student.training.ema=2000", averages])
    assert load("nfm-digits", ["student.training.ema=4000", averages])


def test_encoded_noise_has_each_sampler_once_whatever_its_temperatures():
    sweeps = [{"nfe": [1, 2]}, {"nfe": [2, 4], "temperature": 0.9}, {"solver": "dopri5", "temperature": [1.1, 1.2]}]
    assert evaluation(student=sweeps).from_encoded == (Sweep(nfe=(1, 2, 4)), Sweep(solver="dopri5"))


def test_calls_that_can_be_made_are_those_a_solver_can_plan():
    from pipeline.flow_matching.solvers import calls_per_evaluation, plan_for_nfe

    for solver in ("euler", "midpoint", "heun", "rk4"):
        for guidance in (1.0, 2.0):
            for nfe in range(1, 17):
                sweep = {"solver": solver, "nfe": [nfe], "guidance": guidance}
                try:
                    plan_for_nfe(solver, nfe, calls_per_evaluation(guidance))
                except InputError:
                    with pytest.raises(ValidationError):
                        evaluation(student=[sweep])
                else:
                    assert evaluation(student=[sweep])


def test_new_fields_at_rest_leave_cached_evaluations_alone():
    assert not {"metrics", "reflow"} & fingerprint_fields(evaluation()).keys()
    assert fingerprint_fields(evaluation(metrics=["kid"]))["metrics"] == ["kid"]
    assert fingerprint_fields(evaluation(reflow=[{"nfe": [1]}]))["reflow"][0]["nfe"] == [1]


def test_metrics_are_known_ones_each_once_with_enough_samples():
    with pytest.raises(ValidationError):
        evaluation(metrics=["kid", "kid"])
    with pytest.raises(ValidationError):
        evaluation(metrics=["kid"], samples=19)
    with pytest.raises(ValidationError):
        evaluation(metrics=["precision"])
