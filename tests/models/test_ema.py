"""The moving average: its formula, its state, and that it leaves the model alone."""

import math

import pytest
import torch
from torch import nn

from models.ema import EMA, HalfLife, Power


class Net(nn.Module):
    """A layer, a buffer, dropout and a convolution in channels-last layout."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2, dtype=dtype)
        self.conv = nn.Conv2d(2, 2, 3, dtype=dtype).to(memory_format=torch.channels_last)
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("count", torch.tensor(0))


def drift(model: nn.Module, seed: int) -> None:
    """Stand in for an optimizer step."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
        model.count += 1


def trained(updates: int = 5, batch: int = 8) -> tuple[Net, EMA]:
    torch.manual_seed(0)
    model = Net()
    ema = EMA(model, HalfLife(100))
    for i in range(1, updates + 1):
        drift(model, i)
        ema.update(i * batch)
    return model, ema


def test_half_life_is_the_half_life():
    model = Net(torch.float64)
    nn.init.zeros_(model.linear.weight)
    ema = EMA(model, HalfLife(1000, ramp=math.inf))
    nn.init.ones_(model.linear.weight)
    for seen in range(50, 3001, 50):  # three half-lives: the initial zeros keep an eighth
        ema.update(seen)
    torch.testing.assert_close(ema.module().linear.weight, torch.full((2, 3), 7 / 8, dtype=torch.float64))


def test_half_life_does_not_depend_on_the_batch_size():
    model = Net(torch.float64)
    emas = [EMA(model, HalfLife(1000, ramp=math.inf)) for _ in range(2)]
    drift(model, 0)
    emas[0].update(300)
    for seen in (1, 100, 300):
        emas[1].update(seen)
    torch.testing.assert_close(emas[0].module().linear.weight, emas[1].module().linear.weight)


def test_ramp_follows_the_closed_form():
    """Average = sum of w_i (1 - beta_i) times the later betas, plus w_0 times all betas."""
    model = Net(torch.float64)
    ema = EMA(model, HalfLife(40, ramp=0.5))
    history = [model.linear.weight.detach().clone()]
    betas = []
    for i in range(1, 21):
        drift(model, i)
        ema.update(8 * i)
        history.append(model.linear.weight.detach().clone())
        betas.append(2 ** (-8 / min(40, 0.5 * 8 * i)))
    assert betas[-1] == 2 ** (-8 / 40) and betas[0] == 1 / 4  # the ramp began below the half-life and ended
    expected = math.prod(betas) * history[0]
    for i in range(1, 21):
        expected = expected + (1 - betas[i - 1]) * math.prod(betas[i:]) * history[i]
    torch.testing.assert_close(ema.module().linear.weight, expected, atol=1e-12, rtol=0)


def test_default_ramp_forgets_the_initial_weights_at_once():
    model, ema = trained(updates=1)
    torch.testing.assert_close(ema.module().linear.weight, model.linear.weight.detach(), atol=1e-5, rtol=0)


def test_averages_half_precision_weights_in_float32():
    model = Net(torch.bfloat16)
    nn.init.ones_(model.linear.weight)
    ema = EMA(model, HalfLife(1e6, ramp=math.inf))
    nn.init.constant_(model.linear.weight, 2.0)
    for seen in range(1000, 101_000, 1000):  # steps of 7e-4, below the spacing of bfloat16 at 1
        ema.update(seen)
    average = ema.state_dict()["average.linear.weight"]
    assert average.dtype == torch.float32
    torch.testing.assert_close(average, torch.full((2, 3), 2 - 2**-0.1))
    assert ema.module().linear.weight.dtype == torch.bfloat16


def test_module_is_a_fresh_evaluating_copy():
    model, ema = trained()
    model.linear(torch.ones(1, 3)).sum().backward()
    module = ema.module()
    assert not module.training and not module.dropout.training
    assert not any(p.requires_grad or p.grad is not None for p in module.parameters())
    assert module.count == 5  # buffers are copied
    nn.init.zeros_(module.linear.weight)
    assert ema.module().linear.weight.any()  # not a view of the average


def test_model_is_left_untouched():
    model, ema = trained()
    model.linear(torch.ones(1, 3)).sum().backward()
    before = {n: v.clone() for n, v in model.state_dict().items()}
    ema.update(1000)
    ema.module()
    ema.load_state_dict(ema.state_dict())
    assert model.training and model.dropout.training
    assert all(p.requires_grad for p in model.parameters()) and model.linear.weight.grad is not None
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())


def test_copy_to_writes_into_a_given_model():
    _, ema = trained()
    target = Net()
    ema.copy_to(target)
    expected = ema.module().state_dict()
    assert all(torch.equal(v, expected[n]) for n, v in target.state_dict().items())
    assert target.training  # only weights and buffers change


def test_state_round_trip_continues_bitwise():
    model, ema = trained()
    state = {n: v.clone() for n, v in ema.state_dict().items()}
    assert all(isinstance(v, torch.Tensor) and v.is_contiguous() for v in state.values())
    resumed = EMA(model, HalfLife(100))
    resumed.load_state_dict(state)
    for i in range(6, 9):
        drift(model, i)
        ema.update(8 * i)
        resumed.update(8 * i)
    end, resumed_end = ema.state_dict(), resumed.state_dict()
    assert end.keys() == resumed_end.keys() and end["images_seen"] == 64
    assert all(torch.equal(end[n], resumed_end[n]) for n in end)


def test_state_is_a_snapshot():
    model, ema = trained()
    state = ema.state_dict()
    before = state["average.linear.weight"].clone()
    drift(model, 9)
    ema.update(1000)
    assert torch.equal(state["average.linear.weight"], before)


@pytest.mark.parametrize("arguments", [(0,), (1, 0)])
def test_rejects_a_memory_that_is_not_positive(arguments):
    with pytest.raises(ValueError, match="must be positive, got 0"):
        HalfLife(*arguments)


def test_power_function_is_the_weighted_mean_of_the_paper():
    """beta_t = (1 - 1/t)^(gamma + 1) keeps sum_i w_i theta_i with w_i the increments of (i / n)^(gamma + 1)."""
    model, memory = Net(torch.float64), Power(0.1)
    ema, history = EMA(model, memory), []
    for i in range(1, 31):
        drift(model, i)
        ema.update(8 * i)
        history.append(model.linear.weight.detach().clone())
    power = memory.gamma + 1
    shares = [(i / 30) ** power - ((i - 1) / 30) ** power for i in range(1, 31)]
    expected = sum(share * weight for share, weight in zip(shares, history, strict=True))
    torch.testing.assert_close(ema.module().linear.weight, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("width", "gamma"), [(0.05, 16.97), (0.10, 6.94)])
def test_gamma_of_the_paper_and_width_of_the_profile(width, gamma):
    """Karras et al. 2024 state gamma = 16.97 and 6.94; the standard deviation of the density t^gamma is the width."""
    assert Power(width).gamma == pytest.approx(gamma, abs=0.005)
    t = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    weights = t ** Power(width).gamma
    mean = (weights * t).sum() / weights.sum()
    spread = ((weights * (t - mean) ** 2).sum() / weights.sum()).sqrt()
    assert spread.item() == pytest.approx(width, rel=1e-4)


@pytest.mark.parametrize("width", [0, 0.29, -1])
def test_rejects_a_width_without_a_profile(width):
    with pytest.raises(ValueError, match="width must lie in"):
        Power(width)


def test_state_of_a_half_life_is_refused_by_a_power():
    model, ema = trained()
    with pytest.raises(ValueError, match="load it into the EMA"):
        EMA(model, Power(0.1)).load_state_dict(ema.state_dict())


def test_rejects_a_clock_that_stands_still():
    _, ema = trained()
    with pytest.raises(ValueError, match="images_seen must grow, got 40 after 40"):
        ema.update(40)


def test_rejects_the_state_of_another_average():
    model, ema = trained()
    before = ema.state_dict()
    with pytest.raises(ValueError, match=r"images=100.*got.*50"):
        ema.load_state_dict(EMA(model, HalfLife(50)).state_dict())
    with pytest.raises(ValueError, match="load it into the EMA that saved it"):
        ema.load_state_dict({})
    smaller = {n: v for n, v in before.items() if n != "average.linear.bias"}
    with pytest.raises(ValueError, match=r"state must have the names and shapes .* linear\.bias \(2,\)"):
        ema.load_state_dict(smaller)
    with pytest.raises(ValueError, match="model must have the names and shapes"):
        ema.copy_to(nn.Linear(3, 2))
    assert all(torch.equal(v, before[n]) for n, v in ema.state_dict().items())
