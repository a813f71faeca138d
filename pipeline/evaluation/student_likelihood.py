"""Bits per dimension of a student, as the continuous normalizing flow that it is, on held-out images."""

from __future__ import annotations

import torch
from torch import nn

from pipeline.data.examples import Examples, drawn
from pipeline.flow_matching.likelihood import bits_per_dimension, dequantise, log_density
from pipeline.flow_matching.solvers import Guided
from pipeline.outputs.results import LikelihoodResult
from pipeline.recipe.sections import Likelihood
from pipeline.runtime import ranks
from pipeline.runtime.device import same_bits
from pipeline.runtime.job import Job
from pipeline.runtime.noise import uniform
from pipeline.runtime.seeds import derive, generator
from storage.imageset import ImageSet

TOGETHER = 64  # images in one integration: they share its steps, so this is part of the number


def student_bits(
    network: nn.Module, images: ImageSet, wish: Likelihood, job: Job, device: torch.device
) -> LikelihoodResult:
    """Mean over test images drawn once and for all, each dequantised uniformly once; the ranks share the batches.

    The network predicts the velocity of a straight path, given the class where there are any.
    """
    held_out = Examples.of(images, "test")
    chosen = drawn(wish.images, len(held_out))
    densities, errors, calls = [], [], []
    for rows in ranks.mine(chosen.split(TOGETHER)):
        u = uniform(derive(job.config.seed, "likelihood"), rows, torch.zeros_like(rows), held_out.shape)
        x = dequantise(held_out.pixels(rows), images.levels, u).to(device)
        labels = held_out.classes(rows)
        with same_bits(device):
            found = log_density(
                Guided(network, None if labels is None else labels.to(device)),
                x,
                divergence="hutchinson",
                probes=wish.probes,
                generator=generator(job.config.seed, "probes", int(rows[0])),
                rtol=wish.tolerance,
                atol=wish.tolerance,
            )
        densities.append(found.log_density.cpu())
        errors.append(found.probe_error.cpu())
        calls.append(found.calls)
        job.pause_point()
    parts = ranks.gathered((densities, errors, calls))
    densities, errors, calls = ([item for part in column for item in part] for column in zip(*parts, strict=True))
    bits = bits_per_dimension(torch.cat(densities), held_out.shape, images.levels, torch.cat(errors))
    return LikelihoodResult(
        bits_per_dim=bits.mean,
        standard_error=bits.standard_error,
        probe_error=bits.probe_error,
        images=bits.images,
        probes=wish.probes,
        tolerance=wish.tolerance,
        calls=sum(calls) / len(calls),
    )
