"""The CPU's operators: each is the plain one that it stands for, in value and in gradient."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.unet import _cpu


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def assert_same(fast, plain, inputs, **tolerance):
    """Values and the gradients of all inputs, for a random cotangent."""
    answers = [f(*inputs) for f in (fast, plain)]
    assert answers[0].shape == answers[1].shape
    torch.testing.assert_close(*answers, **tolerance)
    cotangent = torch.randn(answers[0].shape, dtype=answers[0].dtype)
    gradients = [torch.autograd.grad(answer, inputs, cotangent) for answer in answers]
    for one, two in zip(*gradients, strict=True):
        assert two.abs().max() > 0
        torch.testing.assert_close(one, two, **tolerance)


def repeat_then_convolve(x, weight, bias):
    return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, bias, padding=1)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [1, 4, 7])
def test_repeated_convolution_is_repetition_and_convolution(monkeypatch, size, memory_format):
    monkeypatch.setattr(_cpu, "FEWEST", 0)
    monkeypatch.setattr(F, "interpolate", None)  # the other branch
    x = drawn(2, 3, size, size).detach().to(memory_format=memory_format).requires_grad_()
    weight, bias = drawn(5, 3, 3, 3), drawn(5)
    fast = _cpu.repeated_convolution(x, weight, bias)
    monkeypatch.undo()
    assert fast.shape == (2, 5, 2 * size, 2 * size)
    torch.testing.assert_close(fast, repeat_then_convolve(x, weight, bias))
    gradients = [
        torch.autograd.grad(answer, (x, weight, bias), torch.ones_like(answer).cumsum(3))
        for answer in (fast, repeat_then_convolve(x, weight, bias))
    ]
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two)


def test_few_pixels_give_the_same_as_many():
    weight, bias = drawn(5, 3, 3, 3), drawn(5)
    few, many = drawn(1, 3, 4, 4), drawn(_cpu.FEWEST, 3, 4, 4)
    for x in (few, many):
        assert_same(_cpu.repeated_convolution, repeat_then_convolve, (x, weight, bias))


def test_pointwise_is_the_layer_on_each_pixel():
    layer = nn.Linear(6, 4).double()
    x = drawn(3, 6, 5, 2)
    inputs = (x, layer.weight, layer.bias)
    assert_same(lambda *_: _cpu.pointwise(x, layer), lambda *_: layer(x.movedim(1, -1)).movedim(-1, 1), inputs)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_attention_is_softmax_of_scaled_products(dtype, tolerance):
    q, k, v = (drawn(2, 3, 16, 8, dtype=dtype).roll(part, 2) * (1 + part) for part in range(3))
    exact = torch.softmax(q.double() @ k.double().mT / 8**0.5, -1) @ v.double()
    answer = _cpu.attend(q, k, v)
    assert answer.dtype == dtype
    assert (answer.double() - exact).abs().max() < tolerance * exact.abs().max()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_dropout_zeroes_by_chance_and_keeps_the_mean(probability, dtype, memory_format):
    torch.manual_seed(0)
    x = torch.ones(64, 16, 15, 15, dtype=dtype).to(memory_format=memory_format).requires_grad_()
    dropped = _cpu.dropout(x, probability)
    assert dropped.dtype == dtype and dropped.stride() == x.stride()
    kept = dropped != 0
    # Shares of all, of each channel and of each place: a binomial's, within 5 standard deviations.
    for axes in ((0, 1, 2, 3), (0, 2, 3), (0, 1)):
        share = kept.double().mean(axes)
        deviation = (probability * (1 - probability) / (x.numel() / share.numel())) ** 0.5
        assert ((share - (1 - probability)).abs() < 5 * deviation).all()
    # The chance is a multiple of 2^-16, and the factor is the one that belongs to it: the mean is right.
    factor = 2**16 / (2**16 - round(probability * 2**16))
    torch.testing.assert_close(dropped[kept], torch.full_like(dropped[kept], factor))
    dropped.sum().backward()
    torch.testing.assert_close(x.grad, dropped.detach())  # for x = 1 the gradient is the same factor


def test_neighbouring_elements_are_dropped_independently():
    torch.manual_seed(0)
    kept = (_cpu.dropout(torch.ones(1, 1, 512, 512), 0.5) != 0).double().flatten() * 2 - 1
    for lag in (1, 2, 3, 4, 5, 8):  # four elements share a random word
        assert (kept[lag:] * kept[:-lag]).mean().abs() < 5 / len(kept) ** 0.5


@pytest.mark.parametrize("count", [1, 3, 5])
def test_dropout_of_any_number_of_elements(count):
    torch.manual_seed(0)
    assert set(_cpu.dropout(torch.ones(count), 0.5).tolist()) <= {0.0, 2.0}


def test_dropout_follows_the_seed():
    drops = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drops.append(_cpu.dropout(torch.ones(4, 4, 4, 4), 0.3))
    assert torch.equal(drops[0], drops[1]) and not torch.equal(drops[0], drops[2])


@pytest.mark.parametrize("probability", [1e-7, 1 - 1e-7])
def test_extreme_chances_stay_finite(probability):
    assert _cpu.dropout(torch.ones(1024), probability).isfinite().all()
