"""One number: images from noise, quantised as they would be stored, their features, the distance to the real ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.job import Job
from pipeline.metrics import Moments, features, frechet_distance, quantise, to_unit
from pipeline.results import Score


@dataclass(frozen=True)
class Entry:
    """One line of the evaluation: a way to make images from noise.

    `make` takes sample numbers (n,) and labels (n,) and gives images (n, C, H, W) and the network calls it made. `nfe`
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

    def score(self, entry: Entry, samples: int, job: Job) -> Score:
        """Generate, quantise and measure in one pass; no image is kept. Network calls are the mean over batches."""
        made, calls, seconds = Moments(len(self.real.mean)), [], 0.0
        for rows in torch.arange(samples).split(self.batch):
            began = time.monotonic()
            x, count = entry.make(rows, None if self.labels is None else self.labels[rows].to(self.device))
            grey = quantise(x.cpu().numpy(), self.levels)
            seconds += time.monotonic() - began
            made.update(features(self.extractor, torch.from_numpy(to_unit(grey, self.levels)).to(self.device)))
            calls.append(count)
            job.pause_point()
        return Score(model=entry.model, solver=entry.solver, nfe=entry.nfe or sum(calls) / len(calls),
                     metric=self.protocol["metric"], value=frechet_distance(self.real, made),
                     protocol=self.protocol | entry.facts, seconds=seconds)
