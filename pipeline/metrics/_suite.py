"""The metrics beside the Frechet distance, on the same features, in the pass that makes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.metrics._inception_score import Confidence
from pipeline.metrics._kid import kid
from pipeline.metrics._manifold import manifold
from pipeline.metrics._sliced import sliced_w2
from storage.errors import InputError

KEPT = 10_000  # features of generated images; as many of Inception's are 82 MB
SPLITS = 10  # of the Inception Score: the literature's
PROJECTIONS = 256  # of the sliced Wasserstein distance
DISTANCES = {"kid": 20, "sliced-wasserstein": 2}  # metrics that are distances, and the fewest features of a side


@dataclass(frozen=True)
class MetricValue:
    """One number.

    Attributes:
        metric: its name.
        value: itself.
        error: its standard error, where it has one.
        facts: what a protocol must say of it.
        value_held_out, error_held_out: the same to the held-out images, of a metric that is a distance.
    """

    metric: str
    value: float
    error: float | None
    facts: dict[str, Any]
    value_held_out: float | None = None
    error_held_out: float | None = None


@dataclass
class FeatureBuffer:
    """What one rank keeps of the images it has made: some features, and sums for the Inception Score."""

    rows: list[Tensor] = field(default_factory=list)
    features: list[Tensor] = field(default_factory=list)
    confidence: Confidence | None = None

    def merge(self, other: FeatureBuffer) -> FeatureBuffer:
        """Take in another rank's, and return self."""
        self.rows, self.features = self.rows + other.rows, self.features + other.features
        if self.confidence is not None and other.confidence is not None:
            self.confidence.merge(other.confidence)
        return self


class MetricSuite:
    """Which metrics, against which real features; one for all the ways of sampling that are compared.

    Of the generated images at most `KEPT` features are kept, float32, those of numbers drawn at random once: the same
    for every model, in whatever batches and on however many ranks. The Inception Score is of all images and keeps sums
    alone.

    Costs beside the features themselves, of n real and m generated features that are kept, F wide: KID 6 F n 1,000
    multiplications, precision and its like 2 F (n^2 + n m + m^2), both in float64; of 10,000 of Inception's on each
    side that is a second and some minutes of one CPU core, or seconds of a GPU.

    Args:
        names: any of "kid", "precision-recall", "inception-score", "sliced-wasserstein".
        metric: what a Frechet distance in these features is called: "FID", or "FD-" and a name that the others bear.
        real: (n, F) features of real images.
        samples: images that will be generated.
        logits: (b, F) features to (b, classes) logits; None for an extractor that has no classes.
        seed: of what is kept, of KID's subsets, the splits and the projections.
        device: where distances are computed.
        held_out: (k, F) features of real images that no network was trained on; distances are measured to them too.

    Raises:
        InputError: an Inception Score without classes.
    """

    def __init__(
        self,
        names: Sequence[str],
        metric: str,
        real: Tensor,
        samples: int,
        logits: Callable[[Tensor], Tensor] | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
        held_out: Tensor | None = None,
    ) -> None:
        if "inception-score" in names and logits is None:
            raise InputError(
                "inception-score needs an extractor that knows classes",
                metric,
                "Leave it out of evaluation.metrics, or set reference.extractor to inception or classifier",
            )
        self.names, self.real, self.held_out, self.samples = tuple(names), real, held_out, samples
        self._standard = metric == "FID"
        self._suffix = "inception" if self._standard else metric.removeprefix("FD-")
        self.logits, self.seed, self.device = logits, seed, torch.device(device)
        order = np.random.default_rng(seed).permutation(samples)
        self._kept = torch.zeros(samples, dtype=torch.bool)
        self._kept[torch.from_numpy(order[:KEPT])] = True

    def collect(self) -> FeatureBuffer:
        """An empty collection, for one way of sampling."""
        asked = "inception-score" in self.names
        return FeatureBuffer(
            confidence=Confidence(self.samples, min(SPLITS, self.samples), self.seed) if asked else None
        )

    def update(self, collected: FeatureBuffer, rows: Tensor, features: Tensor) -> None:
        """Take in images number `rows` (b,) by their features (b, F)."""
        keep = self._kept[rows]
        if self._keeps:
            collected.rows.append(rows[keep])
            collected.features.append(features[keep].detach().float().cpu())
        if collected.confidence is not None:
            collected.confidence.update(rows, self.logits(features))

    def measured(self, collected: FeatureBuffer) -> list[MetricValue]:
        """All metrics of a complete collection, in the order of the names."""
        values = []
        generated = self._in_order(collected)
        for name in self.names:
            if name == "inception-score":
                values.append(self._inception_score(collected.confidence))
            elif self._has_held_out(name):
                [near], [far] = (self._against(name, side, generated) for side in (self.real, self.held_out))
                facts = near.facts | {"held_out_features": f"{len(self.held_out):,}"}
                values.append(replace(near, facts=facts, value_held_out=far.value, error_held_out=far.error))
            else:
                values += self._against(name, self.real, generated)
        return values

    def held_out_distances(self) -> dict[str, float]:
        """The distances between the training and the held-out images themselves, by metric."""
        pairs = [self._against(name, self.real, self.held_out) for name in self.names if self._has_held_out(name)]
        return {item.metric: item.value for [item] in pairs}

    def floors(self) -> dict[str, float]:
        """Two random halves of the real features in the same metrics, as the yardstick; the Inception Score has none,
        for it looks at one side only. Halves are smaller, which lowers coverage and recall a little."""
        order = torch.from_numpy(np.random.default_rng(self.seed).permutation(len(self.real)))
        half = len(order) // 2
        sides = self.real[order[:half]], self.real[order[half : 2 * half]]
        return {
            item.metric: item.value
            for name in self.names
            if name != "inception-score"
            for item in self._against(name, *sides)
        }

    def _has_held_out(self, name: str) -> bool:
        """Whether a metric is a distance, and there are enough held-out images for it."""
        return self.held_out is not None and len(self.held_out) >= DISTANCES.get(name, len(self.held_out) + 1)

    @property
    def _keeps(self) -> bool:
        return any(name != "inception-score" for name in self.names)

    def _in_order(self, collected: FeatureBuffer) -> Tensor | None:
        """(m, F) by number of the sample, so that results do not depend on who made what."""
        if not self._keeps:
            return None
        rows = torch.cat(collected.rows)
        if len(rows) != int(self._kept.sum()):
            raise InputError(
                f"These metrics are of {int(self._kept.sum())} generated images", len(rows), "Give all of them."
            )
        return torch.cat(collected.features)[rows.argsort()]

    def _against(self, name: str, real: Tensor, generated: Tensor) -> list[MetricValue]:
        real, generated = real.to(self.device), generated.to(self.device)
        kept = {"features_kept": f"{len(real):,} real, {len(generated):,} generated, drawn at random"}
        if name == "kid":
            distance = kid(real, generated, self.seed)
            facts = {
                "subsets": f"{distance.subsets} of {distance.size:,} of each side, none in two",
                "kernel": "(x·y / F + 1)³",
            }
            return [
                MetricValue(
                    "KID" if self._standard else f"KD-{self._suffix}",
                    distance.value,
                    distance.standard_error,
                    kept | facts,
                )
            ]
        if name == "precision-recall":
            found = manifold(real, generated)
            few, many = found.neighbours
            return [
                MetricValue(metric, getattr(found, metric), None, kept | {"neighbours": neighbours})
                for metric, neighbours in (("precision", few), ("recall", few), ("density", many), ("coverage", many))
            ]
        distance = sliced_w2(real, generated, PROJECTIONS, self.seed)
        return [MetricValue(f"SW2-{self._suffix}", distance, None, kept | {"projections": PROJECTIONS})]

    def _inception_score(self, confidence: Confidence) -> MetricValue:
        """With the standard error of the mean over splits; the literature's ± is their standard deviation."""
        score = confidence.score()
        error = score.std / (score.splits - 1) ** 0.5 if score.splits > 1 else None
        return MetricValue(
            "IS" if self._standard else f"IS-{self._suffix}", score.value, error, {"splits": score.splits}
        )
