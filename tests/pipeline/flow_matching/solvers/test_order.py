"""Each solver converges at its order on an ODE with a closed-form solution, and inverts itself."""

import math
from itertools import pairwise

import pytest
import torch
from torchdiffeq import odeint

from pipeline.flow_matching.solvers import RK4, Dopri5, Euler, Heun, Jump, Midpoint, NotFinite, integrate, trajectory
from pipeline.flow_matching.times import time_grid
from storage.errors import InputError, StageFailed

FIXED = [Euler(), Midpoint(), Heun(), Heun(euler_last=True), RK4()]


def rotation(x, t):
    """dx/dt = (1 + t) J x, non-autonomous, (B, 2): turns by the integral of 1 + t."""
    return (1 + t)[:, None] * torch.stack([-x[:, 1], x[:, 0]], dim=1)


def turned(x, t_from, t_to):
    angle = (t_to + t_to**2 / 2) - (t_from + t_from**2 / 2)
    c, s = math.cos(angle), math.sin(angle)
    return x @ torch.tensor([[c, s], [-s, c]], dtype=x.dtype)


def sample(velocity, z, solver, steps, grid="quadratic"):
    """From noise to data in `steps` steps; Dopri5 makes its own."""
    return integrate(velocity, z, time_grid(grid, steps), solver)


def start(n=4, dtype=torch.float64):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.mark.parametrize("solver", FIXED, ids=repr)
@pytest.mark.parametrize("grid", ["uniform", "quadratic"])
def test_order_of_convergence(solver, grid):
    z = start()
    steps = [32, 64, 128]
    errors = [(sample(rotation, z, solver, n, grid) - turned(z, 1.0, 0.0)).abs().max().item() for n in steps]
    measured = [math.log2(a / b) for a, b in pairwise(errors)]
    assert measured == pytest.approx([solver.order] * 2, abs=0.15)


@pytest.mark.parametrize("solver", FIXED, ids=repr)
def test_cubic_time(solver):
    # v = 3 t^2 moves everything by -1 on the way from t = 1 to 0.
    x = sample(lambda x, t: 3 * t[:, None].square().expand_as(x), start(), solver, 1000, "uniform")
    torch.testing.assert_close(x, start() - 1, atol=1e-2, rtol=0)


@pytest.mark.parametrize("solver", [*FIXED, Dopri5()], ids=repr)
def test_constant_velocity_is_exact_in_one_step(solver):
    # One (x, z) pair per row: v = z - x is all the field knows, and one call brings z to x.
    x, z = torch.randn(2, 6, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(sample(lambda *_: z - x, z, solver, 1), x)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_jumps_with_the_average_velocity_are_exact(steps):
    """dx/dt = x has x_r = x_t e^(r - t), hence the average velocity x_t (e^(r - t) - 1) / (r - t) over [r, t]."""

    def average(x, t, r):
        return x * (torch.expm1(r - t) / (r - t))[:, None]

    grid = time_grid("quadratic", steps)
    for state, t in zip(trajectory(average, start(), grid, Jump()), grid.tolist(), strict=True):
        torch.testing.assert_close(state, start() * math.exp(t - 1))


@pytest.mark.parametrize("solver", FIXED, ids=repr)
def test_flipped_grid_inverts(solver):
    z, grid = start(), time_grid("quadratic", 400)
    x = integrate(rotation, z, grid, solver)
    assert (x - z).abs().max() > 0.5
    torch.testing.assert_close(integrate(rotation, x, grid.flip(0), solver), z, atol=0.03, rtol=0)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9])
def test_dopri5_meets_its_tolerance_both_ways(tolerance):
    z, solver, grid = start(), Dopri5(tolerance, tolerance), time_grid("uniform", 1)
    x = integrate(rotation, z, grid, solver)
    torch.testing.assert_close(x, turned(z, 1.0, 0.0), atol=10 * tolerance, rtol=0)
    torch.testing.assert_close(integrate(rotation, x, grid.flip(0), solver), z, atol=20 * tolerance, rtol=0)


@pytest.mark.parametrize("solver", [*FIXED, Dopri5()], ids=repr)
def test_states_on_the_way(solver):
    z, grid = start(), time_grid("uniform", 64)
    states = trajectory(rotation, z, grid, solver)
    assert len(states) == 65 and torch.equal(states[0], z)
    assert torch.equal(states[-1], integrate(rotation, z, grid, solver))
    torch.testing.assert_close(states[32], turned(z, 1.0, 0.5), atol=0.05, rtol=0)


@pytest.mark.parametrize("solver", [*FIXED, Dopri5()], ids=repr)
def test_input_is_not_changed_and_precision_is_kept(solver):
    for dtype, kept in [(torch.float32,) * 2, (torch.float64,) * 2, (torch.float16, torch.float32)]:
        z = start(dtype=dtype)
        before = z.clone()
        half = sample(lambda x, t: rotation(x, t).bfloat16(), z, solver, 4)  # a network under autocast
        assert torch.equal(z, before) and half.dtype == kept


def test_no_graph_is_kept():
    weight = torch.ones((), requires_grad=True)
    assert not sample(lambda x, t: weight * x, start(), Euler(), 2).requires_grad


@pytest.mark.parametrize("grid", [[1.0], [1.0, 1.0], [1.0, 0.2, 0.4, 0.0], [1.5, 0.0], [1.0, float("nan"), 0.0]])
def test_bad_grid(grid):
    with pytest.raises(InputError):
        integrate(rotation, start(), torch.tensor(grid), Euler())


def test_integer_state_is_refused():
    with pytest.raises(InputError):
        sample(rotation, torch.zeros(2, 2, dtype=torch.uint8), Euler(), 1)


def test_dopri5_says_when_it_fails():
    with pytest.raises(StageFailed):
        sample(lambda x, t: x * float("nan"), start(), Dopri5(), 1)


@pytest.mark.parametrize("rising", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1e-6])  # a slow field makes torchdiffeq look far ahead for its first step
def test_dopri5_asks_for_no_time_outside_of_the_grid(scale, rising):
    """The field has cliffs below 0 and above 1. A solver that steps over them errs more, and asks more often."""
    seen = []

    def cliff(x, t):
        seen.append(t[0].item())
        outside = ((t < 0) | (t > 1))[:, None]
        return scale * torch.where(outside, 1e3 * x, rotation(x, t))

    z, grid = start(), time_grid("uniform", 4)
    grid = grid.flip(0) if rising else grid
    states = trajectory(cliff, z, grid, Dopri5(1e-6, 1e-6))
    assert min(seen) >= 0 and max(seen) <= 1
    if scale == 1.0:
        calls = len(seen)
        ends = [turned(z, grid[0].item(), t) for t in grid.tolist()]
        errors = [(state - end).abs().max().item() for state, end in zip(states, ends, strict=True)]
        assert max(errors) < 1e-5
        seen.clear()
        unbounded = odeint(lambda t, x: cliff(x, t.expand(len(x))), z, grid, rtol=1e-6, atol=1e-6, method="dopri5")
        assert min(seen) < 0 or max(seen) > 1
        assert calls < len(seen) and errors[-1] <= (unbounded[-1] - ends[-1]).abs().max().item()


@pytest.mark.parametrize("solver", FIXED, ids=repr)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_velocity_that_is_not_finite_is_an_error_that_names_the_step(solver, bad):
    def field(x, t):
        return torch.where((t < 0.32)[:, None] & (torch.arange(len(x)) == 2)[:, None], bad, rotation(x, t))

    for run in (integrate, trajectory):
        with pytest.raises(NotFinite) as error:
            run(field, start(), time_grid("uniform", 10), solver)
        step = 8 if solver in (Euler(), Midpoint()) else 7  # these evaluate at no end of a step
        assert error.value.step == step and error.value.time == pytest.approx(1 - step / 10)
