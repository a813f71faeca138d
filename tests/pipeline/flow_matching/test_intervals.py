"""States at the ends of intervals, against a field whose paths are known."""

import math

import pytest
import torch
from torch import nn

from pipeline.flow_matching.intervals import interval_ends, states_between
from pipeline.flow_matching.solvers import RK4, Dopri5
from pipeline.recipe.sections import Sweep

TEMPERATURE = 1.5


class Growing(nn.Module):
    """v = x, so that x_t = x_1 exp(t - 1)."""

    def forward(self, x, t, labels=None, condition=None):
        return x


def noises(count: int = 40):
    return torch.randn(count, 1, 2, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("solver", "steps"), [(RK4(), 16), (Dopri5(1e-6, 1e-6), 4)], ids=["rk4", "dopri5"])
def test_states_at_even_times_are_those_of_the_path(solver, steps):
    states = states_between(Growing(), noises(), solver, steps, 4)
    assert len(states) == 5 and torch.equal(states[0], noises())
    for i, state in enumerate(states):
        torch.testing.assert_close(state, noises() * math.exp(-i / 4), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("intervals", [1, 2, 4])
@pytest.mark.parametrize(("solver", "nfe"), [("rk4", 64), ("dopri5", 0)])
def test_the_first_state_is_the_noise_and_the_others_start_at_its_temperature(solver, nfe, intervals):
    how = Sweep(solver=solver, nfe=(nfe,) if nfe else (), temperature=TEMPERATURE)
    states, calls = interval_ends(Growing(), noises(), None, how, nfe, intervals)
    assert len(states) == intervals + 1 and torch.equal(states[0], noises())
    for i, state in enumerate(states[1:], 1):
        torch.testing.assert_close(state, TEMPERATURE * noises() * math.exp(-i / intervals), rtol=1e-4, atol=1e-4)
    assert calls == nfe or (not nfe and calls >= 6 * intervals)  # dopri5 takes seven stages, the last one again
