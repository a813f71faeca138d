"""The numbers of one way to make images: quantised as they would be stored, their features' distance to the real ones,
what else was asked for, and, where each sample should be one certain image, how near it comes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.evaluation.paired_images import PairedImageMetrics
from pipeline.metrics import FeatureBuffer, MetricSuite, MetricValue, Moments, as_stored, features, frechet_distance
from pipeline.outputs.results import Score
from pipeline.runtime import ranks
from pipeline.runtime.job import Job

#: Sample numbers (n,), labels (n,), and the z (n, C, H, W) to start from instead of these numbers' own or None, to the
#: times of a path from noise to data and x_t (n, C, H, W) at each.
Walk = Callable[[Tensor, Tensor | None, Tensor | None], tuple[list[float], list[Tensor]]]


@dataclass(frozen=True)
class SamplerUnderTest:
    """One line of the evaluation: a way to make images from noise.

    `make` takes sample numbers (n,) and labels (n,) and gives samples (n, C, H, W) and the network calls it made. `nfe`
    is the number asked for, 0 where the solver chooses or there is none. `walk` shows the way, of a model that has one.
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

    Attributes:
        extractor: images in [-1, 1] to features.
        real: moments of the real training images in those features.
        labels: (samples,) int64, the class that each sample is asked for; None where there are none.
        levels: grey levels that samples are rounded to, as if they were stored.
        batch: samples made at a time.
        device: that networks and the extractor are on.
        protocol: facts that every score states.
        decode: samples to images, see `pipeline.stages.data.decoder`.
        targets: the images that samples should be, by number; None where they are free.
        panel: metrics beside the Frechet distance.
        held_out: moments of the held-out images, for a second distance of the same samples.
    """

    extractor: nn.Module
    real: Moments
    labels: Tensor | None
    levels: int
    batch: int
    device: torch.device
    protocol: dict[str, Any]
    decode: Callable[[Tensor], Tensor]
    targets: Callable[[Tensor], Tensor] | None = None
    panel: MetricSuite | None = None
    held_out: Moments | None = None

    def images(self, entry: SamplerUnderTest, rows: Tensor) -> tuple[Tensor, float]:
        """Samples number `rows` (n,) as they would be stored, (n, C, H, W) float32 in [-1, 1], and network calls."""
        x, calls = entry.make(rows, None if self.labels is None else self.labels[rows].to(self.device))
        return as_stored(self.decode(x), self.levels), calls

    def score(self, entry: SamplerUnderTest, samples: int, job: Job) -> tuple[Score, ...]:
        """Generate, quantise and measure in one pass, each rank its batches; no image is kept.

        The Frechet distance comes first, from means and covariances in float64; then the panel's metrics; then PSNR and
        SSIM where there are targets. Network calls are the mean over batches, as they were counted; seconds the sum
        over ranks.
        """
        made, near, calls, seconds = Moments(len(self.real.mean)), PairedImageMetrics(self.levels), [], 0.0
        kept = self.panel.collect() if self.panel else FeatureBuffer()
        for rows in ranks.mine(torch.arange(samples).split(self.batch)):
            began = time.monotonic()
            images, count = self.images(entry, rows)
            seconds += time.monotonic() - began
            found = features(self.extractor, images.to(self.device))
            made.update(found)
            if self.panel is not None:
                self.panel.update(kept, rows, found)
            if self.targets is not None:
                near.update(images, self.targets(rows))
            calls.append(count)
            job.pause_point()
        gathered = ranks.gathered((made, near, kept, calls, seconds))
        return ranks.agreed(self._scores(entry, gathered) if ranks.first() else ())

    def _scores(self, entry: SamplerUnderTest, gathered: list[tuple[Any, ...]]) -> tuple[Score, ...]:
        """From what all ranks have collected; one rank computes, for it may take minutes."""
        moments, likeness, kept, some_calls, spent = zip(*gathered, strict=True)
        calls = [count for part in some_calls for count in part]
        generated = reduce(Moments.merge, moments)
        distance = frechet_distance(self.real, generated)
        to_held_out = frechet_distance(self.held_out, generated) if self.held_out else None
        figures = [MetricValue(self.protocol["metric"], distance, None, {}, to_held_out)]
        if self.panel is not None:
            figures += self.panel.measured(reduce(FeatureBuffer.merge, kept))
        figures += [
            MetricValue(metric, value, None, facts)
            for metric, value, facts in reduce(PairedImageMetrics.merge, likeness).figures()
        ]
        return tuple(
            Score(
                model=entry.model,
                solver=entry.solver,
                nfe=sum(calls) / len(calls),
                metric=item.metric,
                value=item.value,
                error=item.error,
                value_held_out=item.value_held_out,
                error_held_out=item.error_held_out,
                seconds=sum(spent),
                protocol=self.protocol | entry.facts | {"metric": item.metric} | item.facts,
            )
            for item in figures
        )
