"""Scores of the averaged weights at points of a training, and the best of these weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from models.ema import EMA
from storage.required import required

_PREFIX = "best."  # of its weights in a checkpoint


@dataclass(frozen=True)
class Watch:
    """What to measure while a network trains.

    Attributes:
        points: measurements, evenly spaced in images seen; the last is at the end of the training.
        score: a network to its scores by name, lower is better; the first one chooses the best weights. Every rank
            calls it alike and gets the same numbers.
    """

    points: int
    score: Callable[[nn.Module], dict[str, float]]


@dataclass(frozen=True)
class Best:
    """The average of the least score so far: its name, the images seen, the score and the weights, on the CPU."""

    average: str
    images: int
    value: float
    weights: dict[str, Tensor]


class Scores:
    """The state of a `Watch`, part of every checkpoint. None measures nothing.

    Attributes:
        latest: the least of the averages' scores at the last point, by the score's name.
        best: None before the first finite score.
    """

    def __init__(self, watch: Watch | None, steps: int, every: int = 1) -> None:
        self.watch = watch
        self.points = points(steps, watch.points, every) if watch else ()
        self.scored = 0  # the last step that was measured
        self.latest: dict[str, float] = {}
        self.best: Best | None = None

    def due(self, step: int) -> bool:
        """Whether the weights after `step` steps are to be measured, and were not."""
        return step in self.points and step > self.scored

    def measure(self, step: int, images: int, averages: Mapping[str, EMA]) -> dict[str, float]:
        """The scores of each average after `step` steps, as "score/average"; those that are not finite are left out."""
        line: dict[str, float] = {}
        self.latest = {}
        for name, average in averages.items():
            network = average.module()
            values = required(self.watch, "what is measured").score(network)
            for score, value in values.items():
                if math.isfinite(value):
                    line[f"{score}/{name}"] = value
                    self.latest[score] = min(value, self.latest.get(score, value))
            chosen = next(iter(values.values()))
            if math.isfinite(chosen) and (self.best is None or chosen < self.best.value):
                weights = {key: tensor.detach().cpu().clone() for key, tensor in network.state_dict().items()}
                self.best = Best(name, images, chosen, weights)
        self.scored = step
        return line

    def tensors(self) -> dict[str, Tensor]:
        """The best weights, for a checkpoint."""
        return {f"{_PREFIX}{name}": tensor for name, tensor in self.best.weights.items()} if self.best else {}

    def state(self) -> dict[str, Any]:
        """Everything else, for a checkpoint."""
        best = self.best and {"average": self.best.average, "images": self.best.images, "value": self.best.value}
        return {"scored": self.scored, "latest": self.latest, "best": best}

    def load(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Resume from a checkpoint."""
        self.scored, self.latest = state["scored"], state["latest"]
        weights = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items() if name.startswith(_PREFIX)}
        self.best = Best(**state["best"], weights=weights) if state["best"] else None


def points(steps: int, count: int, every: int = 1) -> tuple[int, ...]:
    """Up to `count` steps, evenly spaced in 1..steps and multiples of `every`, but for the last step, always there."""
    even = (round(number * steps / count / every) * every for number in range(1, count))
    return tuple(sorted({step for step in even if 0 < step < steps} | {steps}))
