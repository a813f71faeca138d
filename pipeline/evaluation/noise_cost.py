"""Cost of the noise: the student from the teacher's noise of held-out images, against the same student from N(0, I).

Encoded noise carries its image, so these samples are no generator's. Their distance to the held-out images bounds the
student's own error; the rest of the student's distance comes from N(0, I) not being the law of z (NFM, arXiv
2603.09014).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from pipeline.data.examples import Examples, drawn
from pipeline.evaluation.evaluator import Evaluator, SamplerUnderTest
from pipeline.evaluation.samplers import samplers
from pipeline.outputs import networks
from pipeline.outputs.banks import encoder
from pipeline.outputs.whitening import standard_of
from pipeline.recipe.sections import Evaluation
from pipeline.runtime.job import Job
from pipeline.runtime.seeds import derive
from storage.imageset import ImageSet


def noise_cost_samplers(
    job: Job[Evaluation], images: ImageSet, evaluator: Evaluator, device: torch.device
) -> Iterator[tuple[Evaluator, SamplerUnderTest]]:
    """The student's samplers, each started from z = f(x + eta eps, c) / sigma_f of the held-out images x in turn,
    whitened as the bank is.

    Sample number i starts from held-out image i mod N, in a random order, with its class and fresh eps.
    """
    teacher = job.inputs["teacher"]
    test = Examples.of(images, "test")
    order = drawn(len(test), len(test))
    seed = derive(job.seed, "noise cost")
    flow, standard = networks.load_flow(teacher, device), standard_of(job.inputs["bank"], device)
    encode = encoder(flow, test, teacher.config["noise_std"], seed, device, standard)

    def start(rows: Tensor) -> Tensor:
        """Sample numbers (n,) to z (n, C, H, W)."""
        images, draws = order[rows % len(test)], rows // len(test)
        return encode(draws * len(test) + images).to(device)

    encoded = replace(
        evaluator,
        labels=test.classes(order[torch.arange(job.config.samples) % len(test)]),
        protocol=evaluator.protocol | {"start": f"z of {len(test)} held-out images in turn", "labels": "theirs"},
        suite=None,
    )
    once = job.config.model_copy(update={"student": job.config.from_encoded})
    for sampler in samplers(replace(job, config=once), start, None, device):
        if sampler.model == "student":
            yield encoded, sampler
