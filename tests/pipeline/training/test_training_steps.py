"""One step of training, quantity by quantity: gradient, clipping, rate, average."""

import copy

import pytest
import torch
from torch import nn

from pipeline.training import fit
from pipeline.training._data import Stateless
from pipeline.training._loop import Loop
from pipeline.training.learning_rate import learning_rate
from tests.pipeline.jobs import job, training
from tests.pipeline.training.test_training import CPU, Points, batch, loss


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, 4)


def stepped(work, **changes) -> Loop:
    """After one step; the gradient that it took is still there."""
    loop = Loop(job(work), linear(), loss, training(**changes), CPU, Stateless())
    loop.training_step(0, batch(0), {}, (False, False))
    return loop


def gradient(network: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in network.parameters()])


@pytest.fixture
def true():
    """The loss of the first batch and its gradient, by torch alone."""
    network = linear()
    value = loss(network, batch(0))
    value.backward()
    return value.item(), gradient(network)


@pytest.mark.parametrize("parts", [1, 4])
def test_accumulated_parts_give_the_loss_and_the_gradient_of_the_whole_batch(tmp_path, true, parts):
    loop = stepped(tmp_path, accumulate=parts, clip=None)
    assert loop.history[0]["loss"] == pytest.approx(true[0], rel=1e-5)
    torch.testing.assert_close(gradient(loop.network), true[1])


@pytest.mark.parametrize("share", [0.25, 4.0])
def test_a_gradient_is_shortened_where_it_is_longer_than_the_limit(tmp_path, true, share):
    norm = true[1].norm().item()
    loop = stepped(tmp_path, clip=share * norm)
    torch.testing.assert_close(gradient(loop.network), min(1.0, share) * true[1], rtol=1e-4, atol=1e-6)
    assert loop.history[0]["gradient_norm"] == pytest.approx(norm, rel=1e-5)  # as it was before


def test_the_rate_of_a_step_is_that_of_its_end(tmp_path):
    """Adam's first step moves each weight by the rate, whatever the gradient."""
    settings = {"warmup": 320, "schedule": "cosine", "clip": None, "weight_decay": 0.0}
    loop = stepped(tmp_path / "one", **settings)
    moved = torch.cat(
        [
            (now - then).abs().flatten()
            for now, then in zip(loop.network.parameters(), linear().parameters(), strict=True)
        ]
    )
    torch.testing.assert_close(moved.detach(), torch.full_like(moved, 1e-2 * 32 / 320), rtol=1e-3, atol=1e-7)
    history = fit(job(tmp_path / "all"), linear(), batch, loss, training(**settings), CPU).history
    assert [line["lr"] for line in history] == [learning_rate(training(**settings), 32 * n) for n in range(1, 21)]


def test_the_network_that_comes_out_is_the_average_of_the_weights_after_each_step(tmp_path):
    """beta = 2^(-m / h) after n images, the last m in this step, with h = min(ema, n / 20)."""
    network, states = nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 4)), []

    def watched(net, part):
        states.append([parameter.detach().double() for parameter in copy.deepcopy(net).parameters()])
        return loss(net, part)

    fitted = fit(job(tmp_path), network, batch, watched, training(images=3200, ema=100), CPU)
    weights = [*states[1:], [parameter.detach().double() for parameter in network.parameters()]]
    averages = states[0]
    for step, now in enumerate(weights, 1):
        beta = 2 ** (-32 / min(100, 32 * step / 20))
        averages = [beta * average + (1 - beta) * weight for average, weight in zip(averages, now, strict=True)]
    for made, average, raw in zip(fitted.network.parameters(), averages, weights[-1], strict=True):
        torch.testing.assert_close(made.double(), average, rtol=1e-4, atol=1e-6)
        assert (made - raw).abs().max() > 1e-3


def test_the_loss_of_a_training_is_that_of_its_last_twentieth(tmp_path):
    def growing(net, part):
        return loss(net, part) * 0 + part.x.mean()

    def numbered(step: int) -> Points:
        return Points(torch.full((4, 4), float(step)))

    fitted = fit(job(tmp_path), linear(), numbered, growing, training(images=160, batch=4), CPU)
    assert len(fitted.history) == 40 and fitted.loss == pytest.approx((38 + 39) / 2)


def test_adam_is_torchs_adam(tmp_path):
    """Step by step beside the textbook loop."""
    ours, theirs = linear(), linear()
    optimizer = torch.optim.Adam(theirs.parameters(), lr=1e-2)
    for step in range(5):
        optimizer.zero_grad()
        loss(theirs, batch(step)).backward()
        optimizer.step()
    fit(job(tmp_path), ours, batch, loss, training(optimizer="adam", clip=None, images=160), CPU)
    torch.testing.assert_close(ours.weight, theirs.weight)
