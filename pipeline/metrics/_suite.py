"""The metrics next to the Frechet distance, on the same features, in one pass."""

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
from pipeline.recipe.sections import FEWEST
from storage.errors import InputError
from storage.required import required

FEATURE_ROWS = 10_000  # of generated images, and as many of real ones, which is fair; 82 MB of Inception's
SPLITS = 10  # of the Inception Score: the literature's
PROJECTIONS = 256  # of the sliced Wasserstein distance
DISTANCES = ("kid", "sliced-wasserstein")


@dataclass(frozen=True)
class MetricValue:
    """One number.

    Attributes:
        metric: its name.
        value: itself.
        error: its standard error, where it has one.
        facts: its fields in the protocol.
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
    """One rank's features of generated images, at most `FEATURE_ROWS`, and its sums for the Inception Score."""

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

    Of the generated images at most `FEATURE_ROWS` features are stored, float32, of sample numbers drawn at random once:
    the same for every model, in any batches and on any number of ranks. The Inception Score is of all images.

    Cost in addition to the features, for n real and m generated ones of width F: KID 6 F n 1,000
    multiplications, precision and its like 2 F (n^2 + n m + m^2), both in float64; of 10,000 of Inception's on each
    side that is a second and some minutes of one CPU core, or seconds of a GPU.

    Args:
        names: any of "kid", "precision-recall", "inception-score", "sliced-wasserstein".
        metric: the name of a Frechet distance in these features: "FID", or "FD-" and a name that the others bear.
        real: (n, F) features of real images.
        samples: images that will be generated.
        logits: (b, F) features to (b, classes) logits; None for an extractor that has no classes.
        seed: of the stored rows, of KID's subsets, the splits and the projections.
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
                "The extractor of inception-score must predict classes",
                metric,
                "Leave it out of evaluation.metrics, or set reference.extractor to inception or classifier",
            )
        self.names, self.real, self.held_out, self.samples = tuple(names), real, held_out, samples
        self._standard = metric == "FID"
        self._suffix = "inception" if self._standard else metric.removeprefix("FD-")
        self.logits, self.seed, self.device = logits, seed, torch.device(device)
        order = np.random.default_rng(seed).permutation(samples)
        self._drawn = torch.zeros(samples, dtype=torch.bool)
        self._drawn[torch.from_numpy(order[:FEATURE_ROWS])] = True

    def collect(self) -> FeatureBuffer:
        """An empty collection, for one way of sampling."""
        scored = "inception-score" in self.names
        return FeatureBuffer(
            confidence=Confidence(self.samples, min(SPLITS, self.samples), self.seed) if scored else None
        )

    def update(self, collected: FeatureBuffer, rows: Tensor, features: Tensor) -> None:
        """Take in images number `rows` (b,) by their features (b, F)."""
        keep = self._drawn[rows]
        if self._keeps:
            collected.rows.append(rows[keep])
            collected.features.append(features[keep].detach().float().cpu())
        if collected.confidence is not None:
            collected.confidence.update(rows, required(self.logits, "a classifier")(features))

    def measured(self, collected: FeatureBuffer) -> list[MetricValue]:
        """All metrics of a complete collection, in the order of the names."""
        values = []
        features = self._in_order(collected)
        for name in self.names:
            if name == "inception-score":
                values.append(self._inception_score(required(collected.confidence, "a sum of confidences")))
            elif (held_out := self._held_out_of(name)) is not None:
                generated = required(features, "features")
                [near], [far] = (self._against(name, side, generated) for side in (self.real, held_out))
                facts = near.facts | {"held_out_features": f"{len(held_out):,}"}
                values.append(replace(near, facts=facts, value_held_out=far.value, error_held_out=far.error))
            else:
                values += self._against(name, self.real, required(features, "features"))
        return values

    def held_out_distances(self) -> dict[str, float]:
        """The distances between the training and the held-out images themselves, by metric."""
        sides = [(name, self._held_out_of(name)) for name in self.names]
        pairs = [self._against(name, self.real, held_out) for name, held_out in sides if held_out is not None]
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

    def _held_out_of(self, name: str) -> Tensor | None:
        """The held-out features, of a metric that is a distance and has enough of them."""
        if self.held_out is None or name not in DISTANCES or len(self.held_out) < FEWEST[name]:
            return None
        return self.held_out

    @property
    def _keeps(self) -> bool:
        return any(name != "inception-score" for name in self.names)

    def _in_order(self, collected: FeatureBuffer) -> Tensor | None:
        """(m, F) by number of the sample, so that results do not depend on the ranks."""
        if not self._keeps:
            return None
        rows = torch.cat(collected.rows)
        if len(rows) != int(self._drawn.sum()):
            raise InputError(
                f"The number of generated images must be {int(self._drawn.sum())}", len(rows), "Add every image once."
            )
        return torch.cat(collected.features)[rows.argsort()]

    def _against(self, name: str, real: Tensor, generated: Tensor) -> list[MetricValue]:
        real, generated = real.to(self.device), generated.to(self.device)
        counts = {"features_kept": f"{len(real):,} real, {len(generated):,} generated, drawn at random"}
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
                    counts | facts,
                )
            ]
        if name == "precision-recall":
            shares = manifold(real, generated)
            few, many = shares.neighbours
            return [
                MetricValue(metric, getattr(shares, metric), None, counts | {"neighbours": neighbours})
                for metric, neighbours in (("precision", few), ("recall", few), ("density", many), ("coverage", many))
            ]
        if name != "sliced-wasserstein":
            raise NotImplementedError(f"no metric {name!r} of features")
        sliced = sliced_w2(real, generated, PROJECTIONS, self.seed)
        return [MetricValue(f"SW2-{self._suffix}", sliced, None, counts | {"projections": PROJECTIONS})]

    def _inception_score(self, confidence: Confidence) -> MetricValue:
        """With the standard error of the mean over splits; the literature's ± is their standard deviation."""
        score = confidence.score()
        error = score.std / (score.splits - 1) ** 0.5 if score.splits > 1 else None
        return MetricValue(
            "IS" if self._standard else f"IS-{self._suffix}", score.value, error, {"splits": score.splits}
        )
