"""Distillation to k steps: a student that takes them exactly has no loss, and one without loss takes them exactly."""

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.flow_matching.intervals import states_between
from pipeline.flow_matching.losses import SQUARED, PseudoHuber
from pipeline.flow_matching.objective import FlowMatching
from pipeline.flow_matching.solvers import RK4, Euler
from pipeline.flow_matching.times import time_grid
from pipeline.training.segments import Segments, on_a_line
from pipeline.training.student import train
from tests.pipeline.flow_matching.solvers.test_order import sample
from tests.pipeline.jobs import job, training

SHAPE = (1, 2, 2)


def bent(x, t):
    """A field whose paths are no straight lines."""
    return torch.sin(3 * x) + x * t.view(-1, 1, 1, 1)


def noises(count: int = 40):
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(0))


def segments(steps: int, batch: int = 20, solver=None) -> tuple[Segments, list[torch.Tensor]]:
    """Those of the bent field, and its states at the even times."""
    states = states_between(bent, noises(), solver or RK4(), 16 * steps, steps)
    path = torch.stack(list(reversed(states)), 1).numpy()  # (paths, steps + 1, ...)
    ends, starts = (part.reshape(-1, *SHAPE) for part in (path[:, :-1], path[:, 1:]))
    labels = np.repeat(np.arange(len(path)), steps)
    return Segments(starts, ends, labels, steps, 3, batch), states


class Exact(nn.Module):
    """Answers k (x_{i/k} - x_{(i-1)/k}) to who stands on a path at x_{i/k}; `labels` are the numbers of the paths."""

    def __init__(self, states, steps: int):
        super().__init__()
        self.states, self.steps = torch.stack(states), steps  # (k + 1, paths, ...), from t = 1 to 0

    def forward(self, x, t, labels):
        at = (self.steps * (1 - t)).round().long()
        assert (x - self.states[at, labels]).abs().max() < 1e-5
        return (self.states[at, labels] - self.states[at + 1, labels]) * self.steps


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("loss", [SQUARED, PseudoHuber()])
def test_an_exact_student_of_k_steps_has_no_loss(steps, loss):
    couples, states = segments(steps)
    network = Exact(states, steps)
    for step in range(2 * steps):
        assert FlowMatching(loss=loss)(network, couples(step)) < 1e-9
    assert FlowMatching(loss=loss)(lambda x, t, labels: bent(x, t), couples(0)) > 1e-4  # the teacher's own is not


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_k_euler_steps_of_it_end_where_the_path_does(steps):
    _, states = segments(steps)
    network, labels = Exact(states, steps), torch.arange(len(states[0]))
    made = sample(lambda x, t: network(x, t, labels), states[0], Euler(), steps, "uniform")
    torch.testing.assert_close(made, states[-1], rtol=0, atol=1e-5)
    assert (sample(bent, states[0], Euler(), steps, "uniform") - states[-1]).abs().max() > 0.05


def test_every_interval_of_every_path_comes_once_in_an_epoch():
    couples, _ = segments(4)
    seen = [couples(step) for step in range(8)]  # 160 rows: 40 paths of 4 intervals
    found = sorted(
        (path, round(4 * time))
        for part in seen
        for path, time in zip(part.labels.tolist(), part.t.tolist(), strict=True)
    )
    assert found == [(path, interval) for path in range(40) for interval in range(1, 5)]
    assert {time for part in seen for time in part.t.tolist()} == set(time_grid("uniform", 4).tolist()) - {0.0}


def test_a_line_passes_both_ends():
    start, end, t = noises(3), noises(6)[3:], torch.tensor([1.0, 0.75, 0.25])
    couples = on_a_line(start, end, t, 4)
    for time, state in ((t, start), (t - 0.25, end)):
        time = time.view(-1, 1, 1, 1)
        torch.testing.assert_close((1 - time) * couples.x + time * couples.z, state, rtol=0, atol=1e-5)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(5, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 4))

    def forward(self, x, t, labels):
        return self.layers(torch.cat([x.flatten(1), t[:, None]], 1)).view_as(x)


def test_a_network_learns_them_and_ends_near_the_end_of_the_path(tmp_path):
    steps = 2
    couples, states = segments(steps, batch=80)
    couples.ends.labels[:] = 0
    fitted = train(
        job(tmp_path), Small(), couples, training(images=64_000, batch=80, lr=3e-3, ema=2000), torch.device("cpu")
    )
    network = fitted.network
    with torch.no_grad():
        made = sample(lambda x, t: network(x, t, None), states[0], Euler(), steps, "uniform")
    plain = sample(bent, states[0], Euler(), steps, "uniform")
    assert (made - states[-1]).square().mean() < 0.1 * (plain - states[-1]).square().mean()
