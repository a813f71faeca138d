"""One number: images from noise, quantised as they would be stored, their features, the distance to the real ones."""

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

    def score(self, entry: Entry, samples: int, job: Job) -> Score:
        """Generate, quantise and measure in one pass, each rank its batches; no image is kept.

        Network calls are the mean over batches, seconds the sum over ranks.
        """
        made, calls, seconds = Moments(len(self.real.mean)), [], 0.0
        for rows in ranks.mine(torch.arange(samples).split(self.batch)):
            began = time.monotonic()
            x, count = entry.make(rows, None if self.labels is None else self.labels[rows].to(self.device))
            grey = quantise(self.decode(x).cpu().numpy(), self.levels)
            seconds += time.monotonic() - began
            made.update(features(self.extractor, torch.from_numpy(to_unit(grey, self.levels)).to(self.device)))
            calls.append(count)
            job.pause_point()
        parts = ranks.gathered((made, calls, seconds))
        made = reduce(Moments.merge, (moments for moments, _, _ in parts))
        calls, seconds = [count for _, some, _ in parts for count in some], sum(spent for _, _, spent in parts)
        return Score(model=entry.model, solver=entry.solver, nfe=entry.nfe or sum(calls) / len(calls),
                     metric=self.protocol["metric"], value=frechet_distance(self.real, made),
                     protocol=self.protocol | entry.facts, seconds=seconds)
