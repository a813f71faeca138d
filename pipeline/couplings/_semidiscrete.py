"""Semidiscrete optimal transport: each noise belongs to one image."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from pipeline.couplings._base import Pairing
from pipeline.couplings._cells import Cells
from pipeline.couplings._potentials import Potentials
from storage.errors import InputError


class Semidiscrete(Pairing):
    """The optimal transport of N(0, I) to the finite training set: a noise z belongs to one image, whatever the batch.

    Mousavi-Hosseini et al. 2025 (arXiv 2509.25519), without entropic regularisation: z goes to the image x_i with the
    least |z - x_i|^2 - g_i. z is exactly N(0, I); images come up equally often as far as the potentials g were fitted
    (`Potentials.divergence`). With labels, transport is within each class, so that a class's noise is N(0, I) too.

    Unlike a `Coupling`, which is given images, this one draws them, with replacement: it has `draw` and no `noise_for`,
    and there are no epochs.

    A draw costs 2 B N D flops, within classes 2 B N D / C: on CIFAR-10 a batch of 128 takes 4e10, or 4e9 in its
    classes. The images are stored as (N, D) float32, and with labels a copy of them by class.

    Args:
        points: (N, C, H, W) float32, on the device to compute on: those that the potentials were fitted to. Flipped
            copies are points too.
        labels: (N,) int64 or None, as for the fit; None couples across classes.
        potentials: from `fit_potentials`.
        by_class: as of `Cells`.

    Raises:
        InputError: points or labels as `Cells` says, or potentials of other ones.
    """

    def __init__(self, points: Tensor, labels: Tensor | None, potentials: Potentials, by_class: bool = False) -> None:
        self.cells = Cells(points, labels, by_class)
        self.shape = tuple(points.shape[1:])
        fitted = (len(potentials.values), potentials.classes.tolist())
        if fitted != (len(points), self.cells.classes.tolist()):
            raise InputError(
                f"The potentials must be of {len(points)} points of the classes {self.cells.classes.tolist()}",
                fitted,
                "Fit them to these points.",
            )
        self._offsets = [
            potentials.values[self.cells.rows(index)].to(self.cells.device) / 2 - self.cells.half_squares(index)
            for index in range(len(self.cells.sizes))
        ]

    def draw(self, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Pairs of images and noise, of classes as frequent as among the points.

        Args:
            count: of pairs, B.
            generator: on the CPU, so that the draws are the same on every device.

        Returns:
            rows (B,) int64 on the CPU, of the images among the points; and z (B, C, H, W) float32 on the device of the
            points. z[i] belongs to the image rows[i].
        """
        drawn = torch.randint(len(self.cells.order), (count,), generator=generator)
        numbers = torch.bucketize(drawn, torch.tensor(self.cells.sizes).cumsum(0), right=True)  # of classes
        z = torch.randn(count, *self.shape, generator=generator).to(self.cells.device)
        flat, rows = z.flatten(1), torch.empty(count, dtype=torch.long)
        for index in numbers.unique().tolist():
            own = (numbers == index).nonzero().squeeze(1)
            place = self.cells.fall(flat[own.to(z.device)], index, self._offsets[index])
            rows[own] = self.cells.rows(index)[place.cpu()]
        return rows, z
