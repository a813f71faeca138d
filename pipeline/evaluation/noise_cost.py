"""Cost of the noise: the student from the teacher's noise of held-out images, against the same student from N(0, I).

Encoded noise carries its image, so these samples are no generator's. Their distance to held-out images bounds the
student's own error; the rest of the student's distance comes from N(0, I) not being the law of z (NFM, arXiv
2603.09014). Samples that carry the very images they are held against would be nearer to them than any generator's:
one half of the held-out images is encoded, and both kinds of samples are held against the other, in equal numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pipeline.data.examples import Examples, drawn
from pipeline.evaluation.evaluator import Evaluator, SamplerUnderTest
from pipeline.evaluation.samplers import samplers
from pipeline.metrics import Moments, features
from pipeline.outputs import networks
from pipeline.outputs.banks import encoder
from pipeline.outputs.whitening import standard_of
from pipeline.recipe.sections import Evaluation
from pipeline.runtime.job import Job
from pipeline.runtime.seeds import derive
from storage.imageset import ImageSet


def noise_cost_samplers(
    job: Job[Evaluation],
    images: ImageSet,
    evaluator: Evaluator,
    gaussian: Iterable[SamplerUnderTest],
    device: torch.device,
) -> Iterator[tuple[Evaluator, SamplerUnderTest]]:
    """The student's among the `gaussian` samplers, from N(0, I), and then the same from z = f(x + eta eps, c) / sigma_f
    of held-out images x, whitened as the bank is.

    Sample number i has the class of image i of a random half of the held-out images, and starts from its noise.
    """
    test = Examples.of(images, "test")
    order = drawn(len(test), len(test))
    encoded, others = order[: job.config.of_noise(len(test))], order[len(test) // 2 :]
    held_out = Moments(evaluator.width)
    originals = Examples.of(images.originals, "test")
    for rows in others.split(evaluator.batch):
        held_out.update(features(evaluator.extractor, originals.pixels(rows).to(device)))
        job.pause_point()

    labels = test.classes(encoded)
    facts: dict[str, Any] = {"n_fake": len(encoded), "n_held_out": len(others)}
    fair = replace(
        evaluator,
        samples=len(encoded),
        labels=labels,
        held_out=held_out,
        like_held_out=None,
        protocol=evaluator.protocol | facts | ({} if labels is None else {"labels": "those of held-out images"}),
        suite=None,
    )
    z_of = replace(fair, protocol=fair.protocol | {"start": f"z of {len(encoded)} held-out images"})
    teacher = job.inputs["teacher"]
    flow, standard = networks.load_flow(teacher, device), standard_of(job.inputs["bank"], device)
    encode = encoder(flow, test, teacher.config["noise_std"], derive(job.seed, "noise cost"), device, standard)

    def start(rows: Tensor) -> Tensor:
        """Sample numbers (n,) to z (n, C, H, W)."""
        return encode(encoded[rows]).to(device)

    # A network that is not sampled is not loaded.
    student = {"student": job.config.from_encoded, "teacher": False, "reflow": (), "onestep": ()}
    once = replace(job, config=job.config.model_copy(update=student))
    for judge, ways in ((fair, gaussian), (z_of, samplers(once, start, None, device))):
        for sampler in ways:
            if sampler.model == "student":
                yield judge, sampler
