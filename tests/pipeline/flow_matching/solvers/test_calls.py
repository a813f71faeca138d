"""Network calls: planned, made and counted are the same number."""

import pytest
import torch

from pipeline.flow_matching.solvers import (
    CountedField,
    Dopri5,
    Guided,
    Heun,
    calls_per_evaluation,
    integrate,
    plan_for_nfe,
)
from pipeline.recipe.sections import calls_of_a_step
from storage.errors import InputError
from tests.pipeline.flow_matching.solvers.test_order import sample

Z = torch.zeros(3, 2)


def network(x, t, labels):
    return torch.full_like(x, 0.0 if labels is None else 1.0) + 0 * t[:, None]


EXACT = """
    euler 1 1, euler 5 5, euler 31 31, midpoint 2 1, midpoint 12 6, rk4 4 1, rk4 32 8,
    heun 1 1, heun 2 1, heun 3 2, heun 4 2, heun 7 4, heun 8 4, heun 15 8, heun 16 8, heun 31 16, heun 100 50
"""


@pytest.mark.parametrize("name, nfe, steps", [row.split() for row in EXACT.split(",")])
def test_planned_calls_are_made(name, nfe, steps):
    nfe, steps = int(nfe), int(steps)
    plan = plan_for_nfe(name, nfe)
    field = CountedField(lambda x, t: -x)
    sample(field, Z, plan.solver, plan.steps)
    assert (plan.steps, field.calls) == (steps, nfe)


def test_heun_ends_with_euler_only_for_odd_calls():
    assert plan_for_nfe("heun", 31).solver == Heun(euler_last=True)
    assert plan_for_nfe("heun", 32).solver == Heun(euler_last=False)


def test_the_last_step_of_heun_is_the_one_that_euler_makes():
    times, grid = [], torch.tensor([1.0, 0.5, 0.25, 0.0])
    integrate(lambda x, t: times.append(t[0].item()) or -x, Z, grid, Heun(euler_last=True))
    assert times == [1.0, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize(
    "name, nfe, per_evaluation, nearest",
    [
        ("midpoint", 3, 1, "2 or 4"),
        ("midpoint", 1, 1, "2"),
        ("rk4", 31, 1, "28 or 32"),
        ("euler", 0, 1, "1"),
        ("euler", 5, 2, "4 or 6"),
        ("heun", 31, 2, "30 or 32"),
        ("rk4", 4, 2, "8"),
        ("heun", -3, 1, "1"),
    ],
)
def test_impossible_calls_name_the_nearest(name, nfe, per_evaluation, nearest):
    with pytest.raises(InputError, match=f"nearest is {nearest}\\."):
        plan_for_nfe(name, nfe, per_evaluation)


def test_dopri5_cannot_be_planned_but_is_counted():
    with pytest.raises(InputError):
        plan_for_nfe("dopri5", 31)
    field = CountedField(lambda x, t: -x)
    sample(field, Z + 1, Dopri5(), 1)
    loose, field.calls = field.calls, 0
    sample(field, Z + 1, Dopri5(1e-9, 1e-9), 1)
    assert 8 <= loose < field.calls


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("name", ["euler", "midpoint", "heun", "rk4", "jump"])
def test_planning_without_torch_knows_the_calls_of_a_step(name, guidance):
    plan = plan_for_nfe(name, calls_of_a_step(name, guidance), calls_per_evaluation(guidance))
    assert plan.steps == 1


@pytest.mark.parametrize("guidance, calls", [(1.0, 1), (0.0, 2), (3.0, 2)])
def test_guidance_doubles_the_calls(guidance, calls):
    inner = CountedField(network)
    outer = CountedField(Guided(inner, torch.zeros(3, dtype=torch.long), guidance))
    v = outer(Z, torch.ones(3))
    assert inner.calls == outer.calls == calls
    torch.testing.assert_close(v, torch.full_like(Z, guidance))  # v_u = 0, v_c = 1
    plan = plan_for_nfe("heun", 14, outer.calls_per_evaluation)
    outer.calls = 0
    sample(outer, Z, plan.solver, plan.steps)
    assert outer.calls == 14


def test_guidance_needs_labels():
    assert Guided(network, None)(Z, torch.ones(3)).sum() == 0
    with pytest.raises(InputError):
        Guided(network, None, 2.0)
