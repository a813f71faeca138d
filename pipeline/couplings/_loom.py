"""LOOM-CFM: an assignment of noises to images that is kept and refined from minibatch to minibatch."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from pipeline.couplings._base import gaussian_like
from pipeline.couplings._loom_exchange import exchange, keep
from pipeline.couplings._loom_noises import Noises
from storage.errors import InputError

STATISTICS = ("visited", "reassigned", "cost_before", "cost_after")


class Loom:
    """Every image keeps `caches` noises, and images that meet in a minibatch exchange them where that shortens paths.

    Davtyan et al., ICLR 2025, arXiv 2603.15279, Algorithm 1, with the squared distance as the cost. Each visit takes
    one of the image's noises, all equally likely (Section 3.2), finds the exact assignment of least cost within the
    minibatch (Equation 9) and writes it back (Equation 10). So the minibatches work on one assignment of the whole
    set, whose cost never rises (Theorem 1), and the noises stay the same ones for ever: only who has which changes.

    With labels, noise is exchanged only between images of one class: then each class keeps its Gaussian noise, where
    otherwise it would be trained on noise of its own, yet sampled from all. Where a data set has flipped copies, those
    are rows of their own here, with noises of their own.

    A noise is kept as its number in `noises`, 4 bytes: `tau[cache, row]`, (caches, rows) int32. For 128 images of
    3x32x32, making the noises again from `SeededNoises` is over half of the time of `pair`.

    Not for two threads at once: one that prepares batches ahead must be idle while another asks for the state.

    Args:
        noises: what images begin with, `SeededNoises` or `BankNoises`.
        refine: False leaves the assignment as it is (Section 4.1, "fixed source").
        interpolate: the probability phi that an image is trained against its own noise; with 1 - phi it gets a fresh
            one that is used once and not kept (Appendix F, approach 3). The assignment is refined all the same.
        journal: calls of `pair` that can be undone: as many as a trainer makes ahead of its steps.
    """

    def __init__(self, noises: Noises, refine: bool = True, interpolate: float = 1.0, journal: int = 2) -> None:
        self.noises, self.refine, self.interpolate = noises, refine, interpolate
        self.tau = torch.arange(noises.caches * noises.rows, dtype=torch.int32).view(noises.caches, noises.rows)
        self._totals = np.zeros(len(STATISTICS))
        self._journal: deque[_Call] = deque()
        self._longest = journal

    def pair(self, x: Tensor, labels: Tensor | None, rows: Tensor, generator: Generator) -> Tensor:
        """See `Coupling.pair`. A function of the state and the arguments; it changes the state.

        Raises:
            InputError: a row that has no noise, or images of another shape.
        """
        self._check(x, rows)
        if self.interpolate < 1:
            fresh = gaussian_like(x, generator)
            own = torch.rand(len(rows), generator=generator) < self.interpolate
        cache = torch.randint(self.noises.caches, (len(rows),), generator=generator)
        z = self._meet(x, labels, cache * self.noises.rows + rows.cpu())
        if self.interpolate < 1:
            z = torch.where(own.view(-1, 1, 1, 1).to(x.device), z, fresh)
        return z

    def statistics(self, behind: int = 0) -> dict[str, float]:
        """Sums over all pairs made so far; what an epoch adds is a difference of two such.

        `visited` pairs of image and noise, and `reassigned` ones among them, where the image took another noise; and
        the squared distances of image and noise per dimension, `cost_before` and `cost_after` the exchanges. What
        stands in a batch twice counts once. `behind` as for `state`.

        Raises:
            InputError: as `state`.
        """
        return dict(zip(STATISTICS, self._sums(behind).tolist(), strict=True))

    # -- what outlives a crash -----------------------------------------------------------------------------------

    def state(self, behind: int = 0) -> dict[str, Tensor]:
        """What `load_state` takes: `tau` (caches, rows) int32 and `totals` (4,) float64, copies of both.

        Args:
            behind: as before the last so many calls of `pair`, which a trainer may have made ahead of its steps.

        Raises:
            InputError: `behind` is more than the journal holds of calls since the start or `load_state`.
        """
        tau = self.tau.clone()
        known = len(self._known(behind))
        for call in reversed(list(self._journal)[known:]):
            tau.view(-1)[call.places] = call.held
        return {"tau": tau, "totals": torch.from_numpy(self._sums(behind))}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state.

        Raises:
            InputError: it is of another number of images or caches, or does not have each noise once.
        """
        tau, totals = state["tau"].cpu(), state["totals"].cpu()
        if tau.shape != self.tau.shape or tau.dtype != self.tau.dtype or totals.shape != self._totals.shape:
            raise InputError(
                f"This state is {tuple(self.tau.shape)} {self.tau.dtype} of noises",
                (tuple(tau.shape), str(tau.dtype)),
                "Load the state of the same data set and caches.",
            )
        flat = tau.flatten()
        inside = (flat >= 0) & (flat < len(flat))
        if not inside.all() or not (torch.bincount(flat, minlength=len(flat)) == 1).all():
            raise InputError("An assignment has each noise once", "one that has not", "Load a state that is whole.")
        self.tau, self._totals = tau.clone(), totals.double().clone().numpy()
        self._journal.clear()

    # -- one minibatch -------------------------------------------------------------------------------------------

    def _meet(self, x: Tensor, labels: Tensor | None, places: Tensor) -> Tensor:
        """Exchange the noises at `places`, (B,) into the flat tau; the noise of each image of x, (B, C, H, W)."""
        # A batch that straddles epochs can hold a place twice. It has one noise, so it takes part once, and both
        # copies are trained against what it ends with.
        places, first, copies = map(torch.from_numpy, np.unique(places.numpy(), return_index=True, return_inverse=True))
        x = x[first.to(x.device)]
        labels = None if labels is None else labels.cpu()[first]
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
                f"Images have the shape of their noises, {tuple(self.noises.shape)}",
                tuple(x.shape[1:]),
                "Make the noises for these images.",
            )
        outside = rows[(rows < 0) | (rows >= self.noises.rows)].tolist()
        if outside:
            raise InputError(f"Rows lie in 0..{self.noises.rows - 1}", outside[0], "Make noises for all rows.")

    # -- the journal: calls of `pair` that can still be undone ------------------------------------------------------

    def _record(self, call: _Call) -> None:
        self._journal.append(call)
        if len(self._journal) > self._longest:
            self._totals += self._journal.popleft().sums

    def _known(self, behind: int) -> list[_Call]:
        """The calls in the journal without the last `behind`."""
        if not 0 <= behind <= len(self._journal):
            raise InputError(f"The last {len(self._journal)} pairs can be undone", behind, "Ask for a later state.")
        return list(self._journal)[: len(self._journal) - behind]

    def _sums(self, behind: int) -> np.ndarray:
        # AddedLater in the order of the calls: the sums are the same bits however many calls were ahead.
        totals = self._totals.copy()
        for call in self._known(behind):
            totals += call.sums
        return totals


@dataclass(frozen=True)
class _Call:
    """What a call of `pair` changed: places in the flat tau, what they held, and what it adds to the statistics."""

    places: Tensor
    held: Tensor
    sums: np.ndarray
