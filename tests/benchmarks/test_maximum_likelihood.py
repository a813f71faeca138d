"""The benchmark's two sides: their losses are what they are called, and both learn."""

import copy
import math

import pytest
import torch

from benchmarks import maximum_likelihood as benchmark
from pipeline.flow_matching.likelihood import log_density


def points(count=64):
    return benchmark.draw(count, torch.Generator().manual_seed(0))


def gradients(network, loss):
    network.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in network.parameters()])


def test_the_true_density():
    line = torch.linspace(-3, 3, 241, dtype=torch.float64)
    density = benchmark.true_log_density(torch.cartesian_prod(line, line)).exp()
    assert float(density.sum()) * 0.025**2 == pytest.approx(1, abs=1e-6)
    # Eight narrow modes that hardly overlap: the entropy of one, and which one.
    entropy = -float(benchmark.true_log_density(points(4000)).mean())
    assert entropy == pytest.approx(math.log(8 * 2 * math.pi * math.e * benchmark.STD**2), abs=0.1)


def test_the_likelihood_loss_is_minus_the_log_density(monkeypatch):
    monkeypatch.setattr(benchmark, "TRAINING_TOLERANCE", 1e-5)
    side = benchmark.sides()[0]
    untrained = benchmark.likelihood_loss(side.network, points()).item()
    for _ in range(100):
        side.step()
    trained = benchmark.likelihood_loss(side.network, points()).item()
    assert trained == pytest.approx(-float(log_density(side.network, points()).log_density.mean()), abs=1e-3)
    assert trained < untrained - 0.5


def test_the_adjoint_has_the_gradient_of_backpropagation_through_the_solver(monkeypatch):
    monkeypatch.setattr(benchmark, "TRAINING_TOLERANCE", 1e-6)
    network = benchmark.sides()[0].network.double()
    x = points().double()
    through, adjoint = (gradients(network, benchmark.likelihood_loss(network, x, adjoint=a)) for a in (False, True))
    assert through.norm() > 0.1
    torch.testing.assert_close(adjoint, through, atol=1e-4 * float(through.norm()), rtol=0)


@pytest.mark.parametrize("which, steps", [(0, 300), (1, 30)])
def test_each_side_learns_and_is_measured(which, steps):
    side, held_out = benchmark.sides()[which], points(256)
    start = copy.deepcopy(side.network)
    side.measure(held_out)
    losses = [side.step() for _ in range(steps)]
    side.measure(held_out)
    before, after = side.curve
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert before["nats_short"] > after["nats_short"] + 0.3 > 0.3 and after["seconds"] > before["seconds"] == 0
    assert after["steps"] == steps <= after["training_calls"]
    assert side.reached(after["nats_short"]) == after and side.reached(0.0) is None
    moved = [(a - b).abs().max() for a, b in zip(side.networks[1].parameters(), start.parameters(), strict=True)]
    assert min(moved) > 0


def test_the_page_and_the_figure_say_what_was_not_reached(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "HELD_OUT", 100)
    both = benchmark.race(budget=0.02)
    result = benchmark.summary(both)
    page = benchmark.markdown(result)
    assert "not reached" in page and "torchdiffeq" in page and result["command"] in page
    assert set(result["step_seconds"]) > {"flow matching", "maximum likelihood, adjoint"}
    assert len(result["curves"]["flow matching"]) == len(both[0].networks) == 15
    benchmark.figure(both, side_points=8).savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000
