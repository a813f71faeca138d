"""Pseudo-Huber between its limits."""

import pytest
import torch

from pipeline.flow_matching.losses import SQUARED, PseudoHuber

D = 3 * 4 * 4


def velocities(scale: float, dtype=torch.float64):
    target = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return target + scale * torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=dtype), target


def of(loss, answer, target):
    return loss(answer, target, target, torch.ones(len(target)))


def test_as_it_is_written():
    answer, target = velocities(0.3)
    turn = 0.05 * D
    norms = (answer - target).flatten(1).norm(dim=1)
    expected = (((norms**2 + turn**2).sqrt() - turn) / D).mean()
    assert of(PseudoHuber(0.05), answer, target).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("c", [0.00054, 1.0])
def test_small_errors_are_squared(c):
    """Down to where a difference of square roots would have lost every digit."""
    answer, target = velocities(1e-6 * c)
    expected = (answer - target).float().square().flatten(1).sum(1).mean().item() / (2 * c * D**2)
    assert of(PseudoHuber(c), answer, target).item() == pytest.approx(expected, rel=1e-5)


def test_large_errors_count_by_their_norm():
    answer, target = velocities(1e4)
    expected = (answer - target).flatten(1).norm(dim=1).mean().item() / D
    assert of(PseudoHuber(), answer, target).item() == pytest.approx(expected, rel=1e-3)


def test_it_is_zero_without_error_and_its_gradient_is_bounded():
    _, target = velocities(0.0, torch.float32)
    assert of(PseudoHuber(), target, target) == 0 and of(SQUARED, target, target) == 0
    for scale in (0.0, 1e-3, 1.0, 1e6):
        answer, _ = velocities(scale, torch.float32)
        answer.requires_grad_()
        of(PseudoHuber(), answer, target).backward()
        norms = answer.grad.flatten(1).norm(dim=1) * len(target) * D
        assert norms.isfinite().all() and norms.max() <= 1 + 1e-5
        assert scale < 1 or norms.min() > 0.99


def test_one_image_far_off_rules_the_squared_error_alone():
    answer, target = velocities(0.1, torch.float32)
    answer[0] += 100.0
    squared, huber = of(SQUARED, answer, target), PseudoHuber().each(answer, target)
    assert (answer[0] - target[0]).square().mean() / len(target) > 0.999 * squared
    assert huber[0] / huber[1:].mean() < 2 * 100 / 0.1  # not its square


def test_half_precision_is_compared_in_float32():
    answer, target = velocities(0.1, torch.float32)
    loss = of(PseudoHuber(), answer.bfloat16(), target)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(of(PseudoHuber(), answer, target).item(), rel=0.05)
