"""Bits per dimension and denoising, held against closed forms."""

import math

import pytest
import torch

from models.tarflow import TarFlow, TarFlowConfig, bits_per_dimension, denoise
from tests.models.test_tarflow import LABELS, images, random_flow

PLAIN = TarFlowConfig(channels=1, size=4, patch=2, width=16, blocks=2, layers=1, head_dim=8)


def gaussian_flow(log_scale: float, shift: float) -> TarFlow:
    """One block that scales and shifts every token but the first, whatever it reads: a diagonal Gaussian."""
    flow = TarFlow(TarFlowConfig(1, 4, 2, 16, 1, 1, head_dim=8, log_scale_bound=None)).double()
    with torch.no_grad():
        flow.blocks[0].head.bias[:4] = log_scale
        flow.blocks[0].head.bias[4:] = shift
    return flow


# --- bits per dimension


@pytest.mark.parametrize("levels", [17, 256])
def test_a_uniform_density_needs_the_logarithm_of_its_levels(levels):
    log_prob = torch.full((3,), -64 * math.log(2), dtype=torch.float64)  # uniform on [-1, 1]^64
    bits = bits_per_dimension(log_prob, dims=64, bin_width=2 / levels)
    torch.testing.assert_close(bits, torch.full((3,), math.log2(levels), dtype=torch.float64))


def test_bits_of_an_identity_flow_are_those_of_a_standard_normal():
    x = images(PLAIN)
    bits = bits_per_dimension(TarFlow(PLAIN).double().log_prob(x), dims=16, bin_width=1 / 128)
    loss = 0.5 * x.square().mean(dim=(1, 2, 3))  # the published loss, nats per dimension less a constant
    expected = (loss + 0.5 * math.log(2 * math.pi) + math.log(128)) / math.log(2)
    torch.testing.assert_close(bits, expected)


def test_bits_refuse_what_makes_no_sense():
    with pytest.raises(ValueError, match="must be positive, got 0"):
        bits_per_dimension(torch.zeros(1), 0, 1.0)
    with pytest.raises(ValueError, match=r"a bin is 2 / \(L - 1\)"):
        bits_per_dimension(torch.zeros(1), 1, -1.0)


# --- denoising


def test_denoising_under_a_standard_normal_shrinks():
    y = images(PLAIN)
    torch.testing.assert_close(denoise(TarFlow(PLAIN).double(), y, None, 0.3), y * (1 - 0.3**2))


def test_denoising_under_a_gaussian_is_its_posterior_mean():
    # Noisy images N(m, s^2) come from clean ones N(m, s^2 - sigma^2): E[x | y] = m + (s^2 - sigma^2) / s^2 (y - m).
    mean, std, sigma = 0.25, 0.5, 0.2
    y = images(PLAIN)
    denoised = denoise(gaussian_flow(math.log(std), mean), y, None, sigma)
    posterior = mean + (std**2 - sigma**2) / std**2 * (y - mean)
    posterior[:, :, :2, :2] = y[:, :, :2, :2] * (1 - sigma**2)  # the first token is standard normal
    torch.testing.assert_close(denoised, posterior)


def test_denoising_does_not_depend_on_the_micro_batch():
    flow, y = random_flow(dtype=torch.float32), images(dtype=torch.float32)
    together = denoise(flow, y, LABELS, 0.1)
    apart = torch.cat([denoise(flow, y[i : i + 1], LABELS[i : i + 1], 0.1) for i in range(4)])
    assert (together - apart).abs().max() < 1e-5


@pytest.mark.parametrize("labels", [LABELS, None])
def test_denoising_takes_a_few_rows_at_a_time(monkeypatch, labels):
    flow, y = random_flow(dtype=torch.float32), images(dtype=torch.float32)
    whole, sizes = denoise(flow, y, labels, 0.1), []
    monkeypatch.setattr("models.tarflow._likelihood._AT_ONCE", 3 * y[0].numel() + 1)
    log_prob = flow.log_prob
    monkeypatch.setattr(flow, "log_prob", lambda x, c: sizes.append(len(x)) or log_prob(x, c))
    torch.testing.assert_close(denoise(flow, y, labels, 0.1), whole)
    assert sizes == [3, 1]


def test_denoising_works_in_any_surroundings_and_leaves_no_trace():
    flow, y = random_flow(dtype=torch.float32).train(), images(dtype=torch.float32)
    before = y.clone()
    expected = denoise(flow, y, LABELS, 0.1)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(denoise(flow, y, LABELS, 0.1), expected)
    assert torch.equal(y, before) and not expected.requires_grad
    assert flow.training and all(p.grad is None for p in flow.parameters())


def test_denoising_refuses_negative_noise():
    with pytest.raises(ValueError, match="noise_std must be at least 0"):
        denoise(TarFlow(PLAIN), images(PLAIN, dtype=torch.float32), None, -0.1)
