"""LOOM-CFM: one assignment of noises to all images, refined from minibatch to minibatch."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from pipeline.couplings._base import Coupling, gaussian_like
from pipeline.couplings._loom_exchange import exchange, keep
from pipeline.couplings._loom_noises import Noises
from storage.errors import InputError

STATISTICS = ("visited", "reassigned", "cost_before", "cost_after")


class Loom(Coupling):
    """Every image has K noises, and images in one minibatch exchange them where that shortens paths.

    Davtyan et al., ICLR 2025, arXiv 2603.15279, Algorithm 1, with the squared distance as the cost. Each visit takes
    one of the image's K noises, all equally likely (Section 3.2), finds the exact assignment of least cost within the
    minibatch (Equation 9) and writes it back (Equation 10). So the minibatches work on one assignment of the whole
    set, whose cost never rises (Theorem 1). The noises themselves never change, only their owners.

    A noise is stored as its number in `noises`, 4 bytes: `tau[k, row]`, (K, rows) int32. Flipped copies of images are
    rows with noises apart. For 128 images of 3x32x32, computing the noises again from `SeededNoises` takes over half of
    the time of `noise_for`.

    Not thread-safe: a thread that prepares batches must be idle while another asks for the state.

    Args:
        noises: of the start, `SeededNoises` or `BankNoises`.
        refine: False leaves the assignment as it is (Section 4.1, "fixed source").
        interpolate: the probability phi that an image is trained against its own noise; with 1 - phi it gets a fresh
            one that is used once (Appendix F, approach 3). The assignment is refined all the same.
        within_classes: with labels, exchange noise only between images of one class, so that the noise of each class
            stays Gaussian: see `MinibatchOT`.
        journal: calls of `noise_for` that can be undone: as many as a trainer makes ahead of its steps.
    """

    def __init__(
        self,
        noises: Noises,
        refine: bool = True,
        interpolate: float = 1.0,
        journal: int = 2,
        within_classes: bool = True,
    ) -> None:
        self.noises, self.refine, self.interpolate, self.within_classes = noises, refine, interpolate, within_classes
        self.tau = torch.arange(noises.noises_per_image * noises.rows, dtype=torch.int32).view(
            noises.noises_per_image, noises.rows
        )
        self._totals = np.zeros(len(STATISTICS))
        self._journal: deque[_Call] = deque()
        self._longest = journal

    @property
    def streamed(self) -> bool:
        """Whether its noises are read from the disk at each visit."""
        return self.noises.streamed

    def noise_for(self, x: Tensor, labels: Tensor | None, rows: Tensor, generator: Generator) -> Tensor:
        """See `Coupling.noise_for`. A function of the state and the arguments; it changes the state.

        Raises:
            InputError: a row that has no noise, or images of another shape.
        """
        self._check(x, rows)
        if self.interpolate < 1:
            fresh = gaussian_like(x, generator)
            own = torch.rand(len(rows), generator=generator) < self.interpolate
        cache = torch.randint(self.noises.noises_per_image, (len(rows),), generator=generator)
        z = self._meet(x, labels, cache * self.noises.rows + rows.cpu())
        if self.interpolate < 1:
            z = torch.where(own.view(-1, 1, 1, 1).to(x.device), z, fresh)
        return z

    def statistics(self) -> dict[str, float]:
        """Sums over all pairs so far; the difference of two such is the sum over an epoch.

        `visited` pairs of image and noise, and `reassigned` ones among them, where the image took another noise; and
        the squared distances of image and noise per dimension, `cost_before` and `cost_after` the exchanges. A place
        that is twice in a batch counts once.
        """
        return dict(zip(STATISTICS, self._sums(behind=0).tolist(), strict=True))

    # -- the state in a checkpoint -------------------------------------------------------------------------------

    def state(self, behind: int = 0) -> dict[str, Tensor]:
        """What `load_state` takes: `tau` (K, rows) int32 and `totals` (4,) float64, copies of both.

        Args:
            behind: number of last calls of `noise_for` to leave out, as batches may be prepared ahead of their steps.

        Raises:
            InputError: `behind` is more than the journal holds of calls since the start or `load_state`.
        """
        tau = self.tau.clone()
        for call in reversed(list(self._journal)[len(self._calls_before(behind)) :]):
            tau.view(-1)[call.places] = call.held
        return {"tau": tau, "totals": torch.from_numpy(self._sums(behind))}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Resume from a state.

        Raises:
            InputError: it is of another number of images or noises, or lacks a noise.
        """
        tau, totals = state["tau"].cpu(), state["totals"].cpu()
        if tau.shape != self.tau.shape or tau.dtype != self.tau.dtype or totals.shape != self._totals.shape:
            raise InputError(
                f"The state must be {tuple(self.tau.shape)} {self.tau.dtype}",
                (tuple(tau.shape), str(tau.dtype)),
                "Load a state of the same data set and noises_per_image.",
            )
        flat = tau.flatten()
        inside = (flat >= 0) & (flat < len(flat))
        if not inside.all() or not (torch.bincount(flat, minlength=len(flat)) == 1).all():
            raise InputError("An assignment must have each noise once", flat.tolist()[:8], "Load an undamaged state.")
        self.tau, self._totals = tau.clone(), totals.double().clone().numpy()
        self._journal.clear()

    # -- one minibatch -------------------------------------------------------------------------------------------

    def _meet(self, x: Tensor, labels: Tensor | None, places: Tensor) -> Tensor:
        """Exchange the noises at `places`, (B,) into the flat tau; the noise of each image of x, (B, C, H, W)."""
        # A batch that straddles epochs can hold a place twice. It has one noise, so it takes part once, and both
        # copies are trained against its result.
        places, first, copies = map(torch.from_numpy, np.unique(places.numpy(), return_index=True, return_inverse=True))
        x = x[first.to(x.device)]
        labels = labels.cpu()[first] if labels is not None and self.within_classes else None
        tau = self.tau.view(-1)
        held = tau[places]  # (b,) int32
        z = self.noises.take(held, x.device)
        order, before, after = exchange(x, z, labels) if self.refine else keep(x, z)
        moved = (order != torch.arange(len(order))).nonzero().squeeze(1)
        tau[places[moved]] = held[order[moved]]
        sums = np.array([len(places), len(moved), before.sum().item(), after.sum().item()])
        self._record(_Call(places[moved], held[moved], sums))
        return z[order[copies].to(z.device)]

    def _check(self, x: Tensor, rows: Tensor) -> None:
        if tuple(x.shape[1:]) != tuple(self.noises.shape):
            raise InputError(
                f"Images must have the shape of their noises, {tuple(self.noises.shape)}",
                tuple(x.shape[1:]),
                "Draw noises for these images.",
            )
        outside = rows[(rows < 0) | (rows >= self.noises.rows)].tolist()
        if outside:
            raise InputError(f"Rows must lie in 0..{self.noises.rows - 1}", outside[0], "Draw noises for all rows.")

    # -- the journal: calls of `noise_for` that can still be undone -------------------------------------------------

    def _record(self, call: _Call) -> None:
        self._journal.append(call)
        if len(self._journal) > self._longest:
            self._totals += self._journal.popleft().sums

    def _calls_before(self, behind: int) -> list[_Call]:
        """The calls in the journal without the last `behind`."""
        if not 0 <= behind <= len(self._journal):
            raise InputError(f"behind must lie in 0..{len(self._journal)}", behind, "Ask for a later state.")
        return list(self._journal)[: len(self._journal) - behind]

    def _sums(self, behind: int) -> np.ndarray:
        # Added in the order of the calls: the sums are the same bits however many calls were ahead.
        totals = self._totals.copy()
        for call in self._calls_before(behind):
            totals += call.sums
        return totals


@dataclass(frozen=True)
class _Call:
    """The change by one call of `noise_for`: places in the flat tau, their values before, its share of the sums."""

    places: Tensor
    held: Tensor
    sums: np.ndarray
