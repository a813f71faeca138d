"""Images in place of noise: flow matching from one data set to another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from pipeline.data.examples import Examples
from storage.errors import InputError


@dataclass(frozen=True)
class Source:
    """Draws z from a second image set, uniformly and with replacement.

    Flow matching carries any distribution to any other (Liu et al. 2022, arXiv 2209.03003; Tong et al. 2023, arXiv
    2302.00482): that at t = 1 need not be N(0, I). Labels of the source are ignored: its classes are others.
    """

    examples: Examples

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        """Source images, (B, C, H, W) float32 on the device of x, one for each of x; exact rows of the source.

        Raises InputError where x and the source are of different shapes.
        """
        if tuple(x.shape[1:]) != tuple(self.examples.shape):
            raise InputError(
                f"Images must have the shape of this source, {tuple(self.examples.shape)}",
                tuple(x.shape[1:]),
                "Pair them with images of that shape.",
            )
        rows = torch.randint(len(self.examples), (len(x),), generator=generator)
        return self.examples.pixels(rows).to(x.device)
