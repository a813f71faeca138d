"""The learning rate as a function of images seen."""

from __future__ import annotations

import math

from pipeline.recipe.sections import Training


def learning_rate(training: Training, images: int) -> float:
    """The rate after `images` images: linear warm-up, then constant or a cosine that ends and stays at `final_lr`."""
    if images < training.warmup:
        return training.lr * images / training.warmup
    if training.schedule == "constant":
        return training.lr
    span = max(1, training.images - training.warmup)
    done = min(1.0, (images - training.warmup) / span)
    return training.final_lr + (training.lr - training.final_lr) * 0.5 * (1 + math.cos(math.pi * done))
