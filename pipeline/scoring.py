"""The numbers of one way to make images: quantised as they would be stored, their features' distance to the real ones,
and, where each sample should be one certain image, how near it comes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from pipeline import ranks
from pipeline.job import Job
from pipeline.likeness import Likeness
from pipeline.metrics import Moments, features, frechet_distance, quantise, to_unit
from pipeline.results import Score


@dataclass(frozen=True)
class Entry:
    """One line of the evaluation: a way to make images from noise.

    `make` takes sample numbers (n,) and labels (n,) and gives samples (n, C, H, W) and the network calls it made. `nfe`
    is the number asked for, 0 where the solver chooses or there is none.
    """

    model: str
    solver: str
    nfe: float
    facts: dict[str, Any]
    make: Callable[[Tensor, Tensor | None], tuple[Tensor, float]]


@dataclass(frozen=True)
class Ruler:
    """What all scores of an evaluation share."""

    extractor: nn.Module
    real: Moments
    labels: Tensor | None
    levels: int
    batch: int
    device: torch.device
    protocol: dict[str, Any]
    decode: Callable[[Tensor], Tensor]  # samples to images: see pipeline.stages.data.decoder
    targets: Callable[[Tensor], Tensor] | None = None  # the images that samples should be, by number

    def score(self, entry: Entry, samples: int, job: Job) -> tuple[Score, ...]:
        """Generate, quantise and measure in one pass, each rank its batches; no image is kept.

        The Frechet distance comes first, then PSNR and SSIM where there are targets. Network calls are the mean over
        batches, seconds the sum over ranks.
        """
        made, near, calls, seconds = Moments(len(self.real.mean)), Likeness(self.levels), [], 0.0
        for rows in ranks.mine(torch.arange(samples).split(self.batch)):
            began = time.monotonic()
            x, count = entry.make(rows, None if self.labels is None else self.labels[rows].to(self.device))
            grey = quantise(self.decode(x).cpu().numpy(), self.levels)
            seconds += time.monotonic() - began
            images = torch.from_numpy(to_unit(grey, self.levels))
            made.update(features(self.extractor, images.to(self.device)))
            if self.targets is not None:
                near.update(images, self.targets(rows))
            calls.append(count)
            job.pause_point()
        moments, likeness, some_calls, spent = zip(*ranks.gathered((made, near, calls, seconds)), strict=True)
        calls = [count for part in some_calls for count in part]
        distance = frechet_distance(self.real, reduce(Moments.merge, moments))
        figures = [(self.protocol["metric"], distance, {}), *reduce(Likeness.merge, likeness).figures()]
        return tuple(Score(model=entry.model, solver=entry.solver, nfe=entry.nfe or sum(calls) / len(calls),
                           metric=metric, value=value, seconds=sum(spent),
                           protocol=self.protocol | entry.facts | {"metric": metric} | facts)
                     for metric, value, facts in figures)
