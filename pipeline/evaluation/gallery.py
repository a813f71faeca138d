"""The pictures of an evaluation: samples, their paths, interpolations, and their nearest training images.

All models show the same sample numbers, and so the same noise and classes: they can be compared image by image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL.Image import Image
from torch import Tensor

from pipeline.data.conditions import TargetImages
from pipeline.data.examples import Examples
from pipeline.data.labels import rows_like
from pipeline.data.levels import as_stored
from pipeline.evaluation.evaluator import SamplerUnderTest, Walk
from pipeline.evaluation.samplers import ENLARGED
from pipeline.evaluation.scored import Scored
from pipeline.flow_matching.sampling import Start
from pipeline.reporting.pictures import labelled_rows
from pipeline.reporting.text.names import model
from pipeline.reporting.text.numbers import fixed
from storage.imageset import ImageSet

ROW_IMAGES = 20
TRAJECTORY_TIMES = 9  # rows of a trajectory at most
TRAJECTORY_IMAGES = 10
INTERPOLATION_IMAGES = 11  # from one end to the other, both included
INTERPOLATIONS = 4  # of each model


@dataclass(frozen=True)
class Gallery:
    """What all pictures of an evaluation share.

    Attributes:
        images: the data.
        start: sample numbers to the z they start from.
        targets: the test images that samples should equal, if any.
        source: whether samples start from images and not from noise.
        rows: (n,) sample numbers that are shown; see `rows_in_turn`.
        labels: (n,) their classes, on the networks' device; None where there are no classes.
        decode: samples to images.
        pause: called between two passes of a network; may raise to stop.
    """

    images: ImageSet
    start: Start
    targets: TargetImages | None
    source: bool
    rows: Tensor
    labels: Tensor | None
    decode: Callable[[Tensor], Tensor]
    pause: Callable[[], None] = lambda: None

    def grid(self, scored: Sequence[Scored]) -> Image:
        """Real images, then the same noise through each model at each NFE: samples that were scored."""
        rows, labels = self.rows, self.labels
        if self.targets is not None:
            picture = [("data, held out", self.targets.images(rows))]
        elif self.source:
            picture = [("source", self.start(rows).cpu())]
        else:
            real = self.images.originals
            train = Examples.of(real)
            picture = [("data", train.pixels(rows_like(train, rows, labels)))]
        samplers = [item.sampler for item in scored]
        picture += [(caption(item.sampler, samplers), item.samples(rows)) for item in scored]
        return labelled_rows(picture)

    def trajectories(self, samplers: Sequence[SamplerUnderTest]) -> Image | None:
        """x_t of the same samples at falling t, of each model at its largest NFE; None where none takes two steps."""
        picture = []
        rows, labels = self._shown(slice(TRAJECTORY_IMAGES))
        for sampler, walk in _most_calls(samplers):
            self.pause()
            times, states = walk(rows, labels, None)
            if len(times) > 2:
                shown = torch.linspace(0, len(times) - 1, min(TRAJECTORY_TIMES, len(times))).round().long().tolist()
                picture += [(f"{caption(sampler)}, t = {fixed(times[i], 2)}", self._seen(states[i])) for i in shown]
        return labelled_rows(picture, TRAJECTORY_IMAGES) if picture else None

    def interpolations(self, samplers: Sequence[SamplerUnderTest]) -> Image | None:
        """Images from noises on the great circle between two, at equal angles; in a row, one class or one condition.

        None where samples start from images, between which there is no such circle.
        """
        if self.source:
            return None
        picture = []
        for sampler, walk in _most_calls(samplers):
            for pair in range(min(INTERPOLATIONS, len(self.rows) // 2)):
                self.pause()
                first, last = self.start(torch.tensor([2 * pair, 2 * pair + 1]))
                z = spherical(first, last, torch.linspace(0, 1, INTERPOLATION_IMAGES))
                rows, labels = self._shown(torch.full((INTERPOLATION_IMAGES,), pair))
                _, states = walk(rows, labels, z)
                picture.append((caption(sampler) if pair == 0 else "", self._seen(states[-1])))
        return labelled_rows(picture, INTERPOLATION_IMAGES) if picture else None

    def neighbours(self, compared: Sequence[tuple[Scored, Tensor, Tensor]], train: Examples) -> Image | None:
        """The samples nearest to a training image, nearest first, each above that image.

        Args:
            compared: samples with distances (n,) and rows (n,) of their nearest training images.
            train: the training images.
        """
        picture = []
        samplers = [item.sampler for item, *_ in compared]
        for item, distances, rows in compared:
            nearest = distances.argsort()[:ROW_IMAGES]
            picture += [
                (caption(item.sampler, samplers), item.samples(nearest)),
                ("nearest of training", train.pixels(rows[nearest])),
            ]
        return labelled_rows(picture) if picture else None

    def _shown(self, places: slice | Tensor) -> tuple[Tensor, Tensor | None]:
        return self.rows[places], None if self.labels is None else self.labels[places]

    def _seen(self, samples: Tensor) -> Tensor:
        """Samples as images at the data's grey levels, as they are measured."""
        return as_stored(self.decode(samples), self.images.originals.grey_levels)


def rows_in_turn(labels: Tensor | None, count: int) -> Tensor:
    """(min(count, n),) sample numbers of `labels` (n,) whose classes run in turn, 0, 1, ...; a class without a further
    sample gives its place to the first sample left. Without classes the first ones: `labels` is None."""
    if labels is None:
        return torch.arange(count)
    left, rows = labels.tolist(), []
    classes = int(labels.max()) + 1
    for place in range(min(count, len(left))):
        label = place % classes
        row = left.index(label) if label in left else next(i for i, other in enumerate(left) if other is not None)
        left[row] = None
        rows.append(row)
    return torch.tensor(rows)


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


def caption(sampler: SamplerUnderTest, among: Sequence[SamplerUnderTest] = ()) -> str:
    """The label of a row of a sampler's images. It differs from those of the other samplers in the picture."""
    if sampler.model == "teacher":
        return sampler.model
    if sampler.model == ENLARGED:
        return f"{sampler.model}, {sampler.solver}"
    words = [model(sampler.model), f"NFE {sampler.nfe:g}" if sampler.nfe else "adaptive NFE"]
    if (guidance := sampler.facts.get("guidance", 1)) != 1:
        words.append(f"guidance {guidance:g}")
    siblings = [other for other in among if (other.model, other.nfe) == (sampler.model, sampler.nfe)]
    if len({other.solver for other in siblings}) > 1:
        words.append(sampler.solver)
    for field in ("grid", "temperature", "ema"):
        if len({other.facts.get(field) for other in siblings}) > 1:
            words.append(f"{field} {sampler.facts.get(field, 1)}")
    return ", ".join(words)


def _most_calls(samplers: Sequence[SamplerUnderTest]) -> list[tuple[SamplerUnderTest, Walk]]:
    """Each model that has a path, at its largest NFE, with that path; an adaptive solver counts as 0."""
    best: dict[str, tuple[SamplerUnderTest, Walk]] = {}
    for sampler in samplers:
        if sampler.walk is not None and (sampler.model not in best or sampler.nfe > best[sampler.model][0].nfe):
            best[sampler.model] = sampler, sampler.walk
    return list(best.values())
