"""Bits per dimension of a student, read as a continuous normalizing flow, on held-out images."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from models.precision import ieee
from pipeline.data.examples import Examples, drawn
from pipeline.evaluation.figures import resumed, stoppable
from pipeline.flow_matching.likelihood import bits_per_dimension, dequantise, log_density
from pipeline.flow_matching.solvers import Guided
from pipeline.outputs.results import LikelihoodResult
from pipeline.recipe.sections import Evaluation, Likelihood
from pipeline.runtime import ranks
from pipeline.runtime.device import same_bits
from pipeline.runtime.job import Job
from pipeline.runtime.noise import uniform
from pipeline.runtime.seeds import derive, generator
from storage.imageset import ImageSet

LIKELIHOOD_BATCH = 64  # images of one integration: they share its steps, so the number depends on it


def student_bits(
    network: nn.Module, images: ImageSet, config: Likelihood, job: Job[Evaluation], device: torch.device
) -> LikelihoodResult:
    """Mean over test images drawn at random, each dequantised uniformly once; the ranks share the batches.

    Each batch is stored in the work directory, so that a stopped evaluation resumes after it.

    Args:
        network: the velocity of a straight path, given the class where there are classes.
        images: their test split is measured.
        config: images, probes and tolerance.
        job: for its seed, its work directory and its stop signal.
        device: of the network.
    """
    held_out = Examples.of(images, "test")
    chosen = drawn(config.images, len(held_out))

    def integrated(rows: Tensor) -> dict[str, Any]:
        """Log-densities and their probes' errors (n,), and network calls, of one batch."""
        u = uniform(derive(job.seed, "likelihood"), rows, torch.zeros_like(rows), held_out.shape)
        x = dequantise(held_out.pixels(rows), images.grey_levels, u).to(device)
        labels = held_out.classes(rows)
        velocity = Guided(network, None if labels is None else labels.to(device))
        # TF32 would round by more than the tolerance.
        with same_bits(device), ieee(device, "matmul", "conv"):
            likelihood = log_density(
                stoppable(velocity, job),
                x,
                divergence="hutchinson",
                probes=config.probes,
                generator=generator(job.seed, "probes", int(rows[0])),
                rtol=config.tolerance,
                atol=config.tolerance,
            )
        return {
            "densities": likelihood.log_density.tolist(),
            "errors": likelihood.probe_error.tolist(),
            "calls": likelihood.calls,
        }

    parts = []
    for rows in ranks.mine(chosen.split(LIKELIHOOD_BATCH)):
        parts.append(resumed(job, f"likelihood-{int(rows[0])}", partial(integrated, rows)))
        done = len(parts) * ranks.world() * LIKELIHOOD_BATCH
        job.progress(min(done, len(chosen)), len(chosen), "images of the likelihood")
        job.pause_point()
    parts = [part for others in ranks.gathered(parts) for part in others]
    densities, errors = (
        torch.tensor([value for part in parts for value in part[name]], dtype=torch.float64)
        for name in ("densities", "errors")
    )
    calls = sum(part["calls"] * len(part["densities"]) for part in parts)
    bits = bits_per_dimension(densities, held_out.shape, images.grey_levels, errors)
    return LikelihoodResult(
        bits_per_dim=bits.mean,
        standard_error=bits.standard_error,
        probe_error=bits.probe_error,
        images=bits.images,
        probes=config.probes,
        tolerance=config.tolerance,
        calls=calls / len(densities),
    )
