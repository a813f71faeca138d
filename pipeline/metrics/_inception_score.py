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


def inception_score(logits: Tensor, splits: int = 10, seed: int = 0) -> InceptionScore:
    """exp(E_x KL(p(y | x) || p(y))) in each split (Salimans et al. 2016, arXiv 1606.03498, sec. 4).

    p(y) is the mean over the split. The literature's scores are of 50,000 images in 10 splits, with the logits of
    `Inception.logits`; those of any other classifier compare with nothing but each other.

    Args:
        logits: (n, classes).
        splits: parts of equal size, up to one image.
        seed: of the order in which images are dealt to the splits. Dealt as they come, images sorted by class would
            leave each split with few classes.

    Raises:
        InputError: fewer images than splits, no splits, or a logit that is not finite.
    """
    if not 1 <= splits <= len(logits):
        raise InputError("An Inception Score needs one split or more, and an image in each", (len(logits), splits),
                         "Generate more images or use fewer splits.")
    logits = logits.detach().cpu().double()
    if not torch.isfinite(logits).all():
        raise InputError("Logits are finite", "NaN or infinity", "Look at the images: did they diverge?")
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(logits)))
    log_p = logits.log_softmax(dim=1)[order]  # log p(y | x), (n, classes)
    scores = [_score(part) for part in log_p.tensor_split(splits)]
    return InceptionScore(float(np.mean(scores)), float(np.std(scores)), splits)


def _score(log_p: Tensor) -> float:
    p = log_p.exp()
    # A class of probability 0 in float64 adds 0 to the divergence: xlogy says so where a product would give NaN.
    divergence = torch.special.xlogy(p, p).sum(1) - torch.special.xlogy(p, p.mean(0)).sum(1)
    return float(divergence.mean().exp())
