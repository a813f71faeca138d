"""A student's Frechet distance while it trains, by the evaluation's code on noise of another seed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from pipeline.data.conditions import TargetImages
from pipeline.data.labels import like_training
from pipeline.evaluation.evaluator import Evaluator, SamplerUnderTest
from pipeline.evaluation.samplers import sampled
from pipeline.flow_matching.paths import GaussianPath
from pipeline.flow_matching.sampling import Start, start_of
from pipeline.metrics import frechet_warnings
from pipeline.outputs.images import decoder, source_examples
from pipeline.outputs.reference import load_extractor, load_features
from pipeline.outputs.results import QualityResult
from pipeline.recipe.sections import SampleQuality, Student
from pipeline.runtime.job import Job
from pipeline.runtime.seeds import derive
from pipeline.training import Fitted
from storage.imageset import ImageSet
from storage.required import required


@dataclass(frozen=True)
class SampleScores:
    """Scores of a student's network: the Frechet distance of its samples to the training and the held-out images.

    Its noise and classes are not those of the evaluation, and its conditions or source images are of the training
    split, so that the best average is not chosen on what the evaluation samples from.
    """

    job: Job[Student]
    quality: SampleQuality
    evaluator: Evaluator
    start: Start
    targets: TargetImages | None
    path: GaussianPath

    @classmethod
    def of(cls, job: Job[Student], images: ImageSet, path: GaussianPath, device: torch.device) -> SampleScores:
        reference = job.inputs["reference"]
        extractor = load_extractor(reference, images.originals, device)
        seed = derive(job.seed, "student", "quality")
        condition = job.config.condition
        targets = TargetImages.of(images, None if condition is None else condition.model_dump(), "train")
        quality = required(job.config.quality, "student.quality")
        samples = quality.samples
        labels = like_training(images, samples, seed) if targets is None else targets.labels(torch.arange(samples))
        evaluator = Evaluator(
            extractor,
            load_features(reference, "train").moments,
            samples,
            labels,
            images.originals.grey_levels,
            job.compute.inference_batch,
            device,
            {"metric": reference.metrics["metric"]},
            decoder(job.inputs["data"], device),
            held_out=load_features(reference, "test").moments,
        )
        start = start_of(seed, images.shape, source_examples(job.inputs.get("source"), images, "train"), device)
        return cls(job, quality, evaluator, start, targets, path)

    def __call__(self, network: nn.Module) -> dict[str, float]:
        how, device = self.quality.sweep, self.evaluator.device
        nfe = how.nfe[0] if how.nfe else 0
        make, _ = sampled(network, self.path, how, nfe, self.start, self.targets, device)
        sampler = SamplerUnderTest("student", how.solver, nfe, {}, make)
        (score, *_), _ = self.evaluator.score(sampler, self.job)
        return {"fd": score.value, "fd_held_out": required(score.value_held_out, "the held-out score")}

    def result(self, fitted: Fitted) -> QualityResult | None:
        """The best average, and how it was chosen; None where no score was finite."""
        quality, reference = self.quality, self.job.inputs["reference"].metrics
        how = quality.solver + (f", {quality.nfe} calls" if quality.nfe else "")
        how += f", {quality.grid} grid" if quality.grid != "uniform" else ""
        how += f", guidance {quality.guidance:g}" if quality.guidance != 1 else ""
        inputs = " from training inputs" if self.targets is not None or "source" in self.job.inputs else ""
        count, features = min(quality.samples, self.evaluator.real.count), self.evaluator.width
        return fitted.quality(
            reference["metric"],
            f"{reference['metric']} of {quality.samples:,} samples{inputs} ({how}) against training images",
            extractor=reference["extractor"],
            warnings=tuple(frechet_warnings(count, features)[: count <= features]),  # not that of few images
        )
