"""Bits per dimension of a student whose density is known: a Gaussian of its own for each class."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.evaluation.student_likelihood import student_bits
from pipeline.recipe.sections import Likelihood
from pipeline.runtime.noise import uniform
from pipeline.runtime.seeds import derive
from tests.pipeline.jobs import job

RATES = torch.tensor([0.3, 0.8, 1.3])


class Growing(nn.Module):
    """v = a_c x: noise is e^{a_c} x, so that p(x | c) = N(0, e^{-2 a_c} I). Without a class, a = 0."""

    def forward(self, x, t, labels=None):
        rate = torch.zeros(len(x)) if labels is None else RATES[labels]
        return rate[:, None, None, None] * x


@pytest.mark.parametrize("told", [True, False])
def test_bits_are_those_of_the_density_of_each_images_class(tmp_path, told):
    draws, count = np.random.default_rng(0), 12
    levels = draws.integers(0, 17, (count, 1, 4, 4), dtype=np.uint8)
    labels = np.arange(count) % 3
    test = SimpleNamespace(images=levels, labels=labels if told else None)
    images = SimpleNamespace(test=test, levels=17, grey_levels=17)
    task, rows = job(tmp_path, "evaluation"), torch.arange(count)
    found = student_bits(
        Growing(), images, Likelihood(images=count, probes=2, tolerance=1e-6), task, torch.device("cpu")
    )

    u = uniform(derive(task.config.seed, "likelihood"), rows, torch.zeros_like(rows), (1, 4, 4))
    x = torch.from_numpy(levels / 8 - 1) + (u - 0.5) / 8
    rate = RATES[labels].double()[:, None] if told else torch.zeros(count, 1)
    nats = rate - 0.5 * (math.log(2 * math.pi) + (rate.exp() * x.flatten(1)).square())  # of each dimension
    bits = -(nats.mean(1) + math.log(1 / 8)) / math.log(2)
    assert found.bits_per_dim == pytest.approx(bits.mean().item(), rel=1e-4)
    assert found.standard_error == pytest.approx(bits.std().item() / count**0.5, rel=1e-2)
    assert (found.images, found.probe_error) == (count, pytest.approx(0, abs=1e-5))  # a probe tells a I exactly


def test_the_network_is_called_without_tf32(tmp_path):
    """It is the default of cuDNN's convolutions, and set for the whole process, so that a CPU shows it."""
    products, convolutions, seen = torch.backends.cuda.matmul, torch.backends.cudnn.conv, []

    class Precisions(Growing):
        def forward(self, x, t, labels=None):
            seen.append((products.fp32_precision, convolutions.fp32_precision))
            return super().forward(x, t, labels)

    test = SimpleNamespace(images=np.zeros((2, 1, 2, 2), np.uint8), labels=None)
    images, config = SimpleNamespace(test=test, levels=17, grey_levels=17), Likelihood(images=2, probes=2)
    before = products.fp32_precision, convolutions.fp32_precision
    student_bits(Precisions(), images, config, job(tmp_path, "evaluation"), torch.device("cpu"))
    assert set(seen) == {("ieee", "ieee")}
    assert (products.fp32_precision, convolutions.fp32_precision) == before
