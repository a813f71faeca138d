"""The scores of one sampler: its images, quantised as files store them, compared with the real ones in one pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.data.levels import as_stored
from pipeline.evaluation.paired_images import PairedImageMetrics
from pipeline.metrics import FeatureBuffer, MetricSuite, MetricValue, Moments, features, frechet_distance
from pipeline.metrics.neighbours import STORED_SAMPLES
from pipeline.outputs.results import Score
from pipeline.runtime import ranks
from pipeline.runtime.job import Job

#: Sample numbers (n,), labels (n,), and the z (n, C, H, W) to start from or None for the numbers' own noise, to the
#: times of a path from noise to data and x_t (n, C, H, W) at each.
Walk = Callable[[Tensor, Tensor | None, Tensor | None], tuple[list[float], list[Tensor]]]


@dataclass(frozen=True)
class SamplerUnderTest:
    """One line of the evaluation: a model, and how it is sampled.

    Attributes:
        model: its role, such as "student".
        solver: its name.
        nfe: network calls requested; 0 where the solver chooses them or there are none.
        facts: the protocol's fields of this sampler.
        make: sample numbers (n,) and labels (n,) to samples (n, C, H, W) and their NFE.
        walk: the path of the same samples, of a model that has one.
    """

    model: str
    solver: str
    nfe: float
    facts: dict[str, Any]
    make: Callable[[Tensor, Tensor | None], tuple[Tensor, float]]
    walk: Walk | None = None


@dataclass(frozen=True)
class Evaluator:
    """What all scores of an evaluation share.

    The first `STORED_SAMPLES` images of each sampler are returned with its scores.

    Attributes:
        extractor: images in [-1, 1] to features.
        real: moments of the real training images in those features.
        samples: of each sampler.
        labels: (samples,) int64, the class of each sample; None where there are no classes.
        levels: grey levels that samples are rounded to.
        batch: samples at a time.
        device: of networks and extractor.
        protocol: facts that every score states.
        decode: samples to images, see `pipeline.outputs.images.decoder`.
        targets: sample numbers to the images that samples should equal; None where there are none.
        suite: further metrics.
        held_out: moments of the held-out images, for a second distance of the same samples.
        like_held_out: (samples,) bool, which of them to compare as held-out images do: `pipeline.data.labels`. None
            where there are too few.
    """

    extractor: nn.Module
    real: Moments
    samples: int
    labels: Tensor | None
    levels: int
    batch: int
    device: torch.device
    protocol: dict[str, Any]
    decode: Callable[[Tensor], Tensor]
    targets: Callable[[Tensor], Tensor] | None = None
    suite: MetricSuite | None = None
    held_out: Moments | None = None
    like_held_out: Tensor | None = None

    @property
    def width(self) -> int:
        """Features of an image."""
        return len(self.real.mean)

    def score(self, sampler: SamplerUnderTest, job: Job) -> tuple[tuple[Score, ...], Tensor]:
        """Generate, quantise and measure in one pass; each rank takes its share of the batches.

        The Frechet distance comes first, from means and covariances in float64, also of as many samples as there are
        held-out images: with fewer images it is larger. Then the suite's metrics, and PSNR and SSIM where there are
        targets. NFE is the mean over samples, as counted for their batch; seconds are the sum over ranks.

        Returns:
            The scores, and on the first rank the first samples by number, (n, C, H, W) float32 in [-1, 1].
        """
        some, rest, paired = Moments(self.width), Moments(self.width), PairedImageMetrics(self.levels)
        buffer = self.suite.collect() if self.suite else FeatureBuffer()
        calls, seconds, first = 0.0, 0.0, []
        batches = torch.arange(self.samples).split(self.batch)
        for number, rows in enumerate(ranks.mine(batches)):
            everywhere, began = len(rows) * ranks.world(), time.monotonic()
            x, count = sampler.make(rows, None if self.labels is None else self.labels[rows].to(self.device))
            x = x.cpu()  # waits for the device, so that the times are right
            sampled = time.monotonic()
            images = as_stored(self.decode(x), self.levels)
            ended = time.monotonic()
            seconds += ended - began
            job.timings.add(f"sampling {sampler.model}", everywhere * (count or 1.0), sampled - began)
            job.timings.add("decoding", everywhere, ended - sampled)
            with job.timings.measure("features", everywhere):
                batch_features = features(self.extractor, images.to(self.device))
                chosen = torch.zeros(len(rows), dtype=torch.bool)
                if self.like_held_out is not None:
                    chosen = self.like_held_out[rows]
                some.update(batch_features[chosen])
                rest.update(batch_features[~chosen])
                if self.suite is not None:
                    self.suite.update(buffer, rows, batch_features)
            if self.targets is not None:
                paired.update(images, self.targets(rows))
            calls += count * len(rows)
            if int(rows[0]) < STORED_SAMPLES:
                first.append((int(rows[0]), images[: STORED_SAMPLES - int(rows[0])]))
            done = min(self.samples, self.batch * ranks.world() * (number + 1))
            job.progress(done, self.samples, "samples")
            job.pause_point()
        gathered = ranks.gathered((some, rest, paired, buffer, calls, seconds, first))
        scores = ranks.agreed(self._scores(sampler, gathered) if ranks.first() else ())
        parts = sorted((part for *_, images in gathered for part in images), key=lambda part: part[0])
        return scores, torch.cat([images for _, images in parts])

    def _scores(self, sampler: SamplerUnderTest, gathered: list[tuple[Any, ...]]) -> tuple[Score, ...]:
        """From what all ranks collected; one rank computes, because it may take minutes."""
        some, rest, paired, buffers, calls, spent, _ = zip(*gathered, strict=True)
        generated = reduce(Moments.merge, some)
        at_equal_count = frechet_distance(self.real, generated) if generated.count > 1 else None
        generated = reduce(Moments.merge, rest, generated)
        distance = frechet_distance(self.real, generated)
        to_held_out = frechet_distance(self.held_out, generated) if self.held_out else None
        values = [MetricValue(self.protocol["metric"], distance, None, {}, to_held_out)]
        if self.suite is not None:
            values += self.suite.measured(reduce(FeatureBuffer.merge, buffers))
        values += [
            MetricValue(metric, value, None, facts)
            for metric, value, facts in reduce(PairedImageMetrics.merge, paired).figures()
        ]
        return tuple(
            Score(
                model=sampler.model,
                solver=sampler.solver,
                nfe=sum(calls) / self.samples,
                metric=item.metric,
                value=item.value,
                error=item.error,
                value_held_out=item.value_held_out,
                error_held_out=item.error_held_out,
                value_at_equal_count=at_equal_count if number == 0 else None,
                seconds=sum(spent),
                protocol=self.protocol | sampler.facts | {"metric": item.metric} | item.facts,
            )
            for number, item in enumerate(values)
        )
