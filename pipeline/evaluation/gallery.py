"""The pictures of an evaluation: samples, the way to them, what lies between two of them, and their nearest training
images. Everywhere the same noise and classes, so that models can be compared image by image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL.Image import Image
from torch import Tensor

from pipeline.data.conditions import TargetImages
from pipeline.data.examples import Examples
from pipeline.data.labels import rows_like
from pipeline.evaluation.evaluator import SamplerUnderTest
from pipeline.evaluation.neighbours import TrainingSetNeighbours
from pipeline.evaluation.samplers import ENLARGED
from pipeline.flow_matching.sampling import Start, conditioning_for
from pipeline.metrics import as_stored
from pipeline.reporting.pictures import labelled_rows
from pipeline.reporting.text.names import model
from pipeline.reporting.text.numbers import fixed
from storage.imageset import ImageSet

SHOWN = 20  # images in a row
TIMES = 9  # rows of a trajectory at most
WALKED = 10  # images whose way is shown
STEPS = 11  # images from one to the other of an interpolation, both included
BETWEEN = 4  # interpolations of each model


@dataclass(frozen=True)
class Gallery:
    """What all pictures of an evaluation share.

    Attributes:
        images: the data.
        start: sample numbers to the z they start from.
        held_out: the test images that samples should be, if any.
        source: whether samples start from images and not from noise.
        samples: how many there are at least.
        decode: samples to images.
        device: where networks are.
    """

    images: ImageSet
    start: Start
    held_out: TargetImages | None
    source: bool
    samples: int
    decode: Callable[[Tensor], Tensor]
    device: torch.device

    def grid(self, entries: Sequence[SamplerUnderTest]) -> Image:
        """What samples start from or should be, then the same noise through each model at each number of calls."""
        rows, labels = self._rows(SHOWN)
        if self.held_out is not None:
            picture = [("data, held out", self.held_out.images(rows))]
        elif self.source:
            picture = [("source", self.start(rows).cpu())]
        else:
            real = self.images.originals
            train = Examples.of(real)
            picture = [("data", train.pixels(rows_like(train, rows, labels)))]
        for entry in entries:
            picture.append((caption(entry), self._seen(entry.make(rows, labels)[0])))
        return labelled_rows(picture)

    def trajectories(self, entries: Sequence[SamplerUnderTest]) -> Image | None:
        """x_t of the same samples at falling t, of each model with as many steps as it was sampled with at most; None
        where none takes two steps or more."""
        picture = []
        for entry in _most_calls(entries):
            rows, labels = self._rows(WALKED)
            times, states = entry.walk(rows, labels, None)
            if len(times) > 2:
                shown = torch.linspace(0, len(times) - 1, min(TIMES, len(times))).round().long().tolist()
                picture += [(f"{caption(entry)}, t = {fixed(times[i], 2)}", self._seen(states[i])) for i in shown]
        return labelled_rows(picture, WALKED) if picture else None

    def interpolations(self, entries: Sequence[SamplerUnderTest]) -> Image | None:
        """Images from noises on the great circle between two, at equal angles; in a row, one class or one condition.

        None where samples start from images, between which there is no such circle.
        """
        if self.source:
            return None
        picture = []
        for entry in _most_calls(entries):
            for pair in range(min(BETWEEN, self.samples // 2)):
                first, last = self.start(torch.tensor([2 * pair, 2 * pair + 1]))
                z = spherical(first, last, torch.linspace(0, 1, STEPS))
                rows, labels = self._rows(1, first=pair)
                rows, labels = rows.repeat(STEPS), None if labels is None else labels.repeat(STEPS)
                _, states = entry.walk(rows, labels, z)
                picture.append((caption(entry) if pair == 0 else "", self._seen(states[-1])))
        return labelled_rows(picture, STEPS) if picture else None

    def neighbours(
        self, found: Sequence[tuple[SamplerUnderTest, Tensor, Tensor, Tensor]], training: TrainingSetNeighbours
    ) -> Image | None:
        """The samples that come nearest to a training image, nearest first, above that image.

        `found` holds, by entry, samples (n, C, H, W), and distances (n,) and rows (n,) of their neighbours.
        """
        picture = []
        for entry, samples, distances, rows in found:
            nearest = distances.argsort()[:SHOWN]
            picture += [
                (caption(entry), samples[nearest]),
                ("nearest of training", training.train.pixels(rows[nearest])),
            ]
        return labelled_rows(picture) if picture else None

    def _rows(self, count: int, first: int = 0) -> tuple[Tensor, Tensor | None]:
        rows = torch.arange(first, min(first + count, self.samples))
        return rows, conditioning_for(rows, self.images, self.held_out, self.device)[0]

    def _seen(self, samples: Tensor) -> Tensor:
        """Samples as images at the data's grey levels, as they are measured."""
        return as_stored(self.decode(samples), self.images.originals.levels)


def spherical(a: Tensor, b: Tensor, shares: Tensor) -> Tensor:
    """Points (n, ...) on the great circle from a (...) to b (...), at these shares (n,) of the angle between them.

    sin((1 - s) w) / sin w a + sin(s w) / sin w b, with w the angle (Shoemake 1985; for latents of generators White
    2016, arXiv 1609.04468). Noise of many dimensions lies near a sphere, whose chords run through where there is none.
    """
    dot = (a * b).sum() / (a.norm() * b.norm()).clamp(min=1e-12)
    angle = torch.arccos(dot.double().clamp(-1, 1)).cpu()
    s = shares.double()
    if angle.sin() < 1e-6:  # one direction: the chord is the circle
        of_a, of_b = 1 - s, s
    else:
        of_a, of_b = ((1 - s) * angle).sin() / angle.sin(), (s * angle).sin() / angle.sin()
    place = (-1, *[1] * a.ndim)
    return of_a.to(a).view(place) * a + of_b.to(a).view(place) * b


def caption(entry: SamplerUnderTest) -> str:
    """A row's words."""
    if entry.model == "teacher":
        return entry.model
    if entry.model == ENLARGED:
        return f"{entry.model}, {entry.solver}"
    calls = "as many calls as it takes" if not entry.nfe else "1 call" if entry.nfe == 1 else f"{entry.nfe:g} calls"
    guidance = entry.facts.get("guidance", 1)
    return f"{model(entry.model)}, {calls}" + ("" if guidance == 1 else f", guidance {guidance:g}")


def _most_calls(entries: Sequence[SamplerUnderTest]) -> list[SamplerUnderTest]:
    """Each model that has a way, at its most calls; a solver that chooses them counts as none."""
    best: dict[str, SamplerUnderTest] = {}
    for entry in entries:
        if entry.walk is not None and (entry.model not in best or entry.nfe > best[entry.model].nfe):
            best[entry.model] = entry
    return list(best.values())
