"""The Inception Score: images that a classifier is sure about, and that it sorts into all of its classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from storage.errors import InputError


@dataclass(frozen=True)
class InceptionScore:
    """Mean and standard deviation over the splits.

    Attributes:
        value: from 1, all images alike to the classifier, to the number of classes; higher is better.
        std: of the splits, not the standard error of their mean.
        splits: number of splits. A score depends on it: smaller splits score lower.
    """

    value: float
    std: float
    splits: int


class Confidence:
    """exp(E_x KL(p(y | x) || p(y))) in each split (Salimans et al. 2016, arXiv 1606.03498, sec. 4), in one pass.

    p(y) is the mean over the split. The literature's scores are of 50,000 images in 10 splits, with the logits of
    `Inception.logits`; those of any other classifier compare with nothing but each other.

    The number of an image alone decides its split, whatever the rank and batch. Each split keeps n, sum p(y | x)
    and sum p log p, in float64: exp of (sum p log p)/n less the sum over y of q log q with q = (sum p)/n is its score.

    Args:
        count: images there will be.
        splits: parts of equal size, up to one image.
        seed: of the order in which images are dealt to the splits. Dealt as they come, images sorted by class would
            leave each split with few classes.

    Raises:
        InputError: fewer images than splits, or no splits.
    """

    def __init__(self, count: int, splits: int = 10, seed: int = 0) -> None:
        if not 1 <= splits <= count:
            raise InputError(
                "splits must be >= 1, with at least one image in each",
                (count, splits),
                "Generate more images or use fewer splits.",
            )
        order = np.random.default_rng(seed).permutation(count)
        self._split = torch.empty(count, dtype=torch.long)
        for number, part in enumerate(torch.from_numpy(order).tensor_split(splits)):
            self._split[part] = number
        self.splits, self.count = splits, 0
        self._images = torch.zeros(splits, dtype=torch.float64)
        self._certainty = torch.zeros(splits, dtype=torch.float64)
        self._classes: Tensor | None = None  # (splits, classes), once their number is known

    def update(self, rows: Tensor, logits: Tensor) -> Confidence:
        """Take in images number `rows` (b,) with their logits (b, classes), and return self.

        Raises:
            InputError: a logit that is not finite.
        """
        logits = logits.detach().cpu().double()
        if not torch.isfinite(logits).all():
            raise InputError("Logits must be finite", "NaN or infinity", "Check the images: did the sampler diverge?")
        p, split = logits.softmax(dim=1), self._split[rows.cpu()]
        if self._classes is None:
            self._classes = torch.zeros(self.splits, logits.shape[1], dtype=torch.float64)
        self._images.index_add_(0, split, torch.ones(len(p), dtype=torch.float64))
        self._certainty.index_add_(0, split, torch.special.xlogy(p, p).sum(1))
        self._classes.index_add_(0, split, p)
        self.count += len(p)
        return self

    def merge(self, other: Confidence) -> Confidence:
        """Take in what another one, of another rank, has seen, and return self."""
        if other._classes is not None:
            self._classes = other._classes.clone() if self._classes is None else self._classes + other._classes
            self._images, self._certainty = self._images + other._images, self._certainty + other._certainty
            self.count += other.count
        return self

    def score(self) -> InceptionScore:
        """Raises InputError where images are missing."""
        if self._classes is None or self.count != len(self._split):
            raise InputError(f"The number of images must be {len(self._split)}", self.count, "Add every image once.")
        marginal = self._classes / self._images[:, None]
        scores = (self._certainty / self._images - torch.special.xlogy(marginal, marginal).sum(1)).exp()
        return InceptionScore(float(scores.mean()), float(scores.std(correction=0)), self.splits)
