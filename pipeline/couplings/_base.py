"""The interface of a coupling."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

import torch
from torch import Generator, Tensor


class Pairing:
    """Gives a training its pairs of image and noise: a `Coupling`, or `Semidiscrete`, which draws both."""

    @property
    def streamed(self) -> bool:
        """Whether noise is read from the disk at each visit."""
        return False

    def for_one_rank(self) -> Self:
        """This one, or one like it that gives the noise of whole batches where this one gives a rank's part."""
        return self


class Coupling(Pairing, ABC):
    """Chooses the noise z of each image x of a batch.

    Of one that changes from step to step a training also saves the state (`pipeline.training.flow_batches`).
    """

    @abstractmethod
    def noise_for(self, x: Tensor, labels: Tensor | None, rows: Tensor, generator: Generator) -> Tensor:
        """Noise z for images x.

        Args:
            x: images in [-1, 1], (B, C, H, W) float32.
            labels: classes, (B,) int64, or None where there are none.
            rows: of the images in the data set, (B,) int64.
            generator: on the CPU, so that the draws are the same on every device.

        Returns:
            (B, C, H, W) float32 on the device of x. z[i] belongs to x[i].
        """


#: Draws z for x (B, C, H, W), with a generator on the CPU: `gaussian_like`, or a `Source` of images.
Draw = Callable[[Tensor, Generator], Tensor]


def gaussian_like(x: Tensor, generator: Generator) -> Tensor:
    """N(0, I) of the shape and device of x, drawn on the CPU."""
    return torch.randn(x.shape, generator=generator).to(x.device)
