"""LOOM-CFM without training: the assignment is refined to convergence first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from pipeline.couplings._loom import Loom
from pipeline.data.examples import Examples
from pipeline.runtime.seeds import generator


def refine_to_convergence(
    examples: Examples,
    loom: Loom,
    batch: int,
    seed: int,
    max_epochs: int,
    tolerance: float,
    done: Sequence[dict[str, float]] = (),
) -> Iterator[list[dict[str, float]]]:
    """Refine `loom` epoch by epoch ("train after convergence", arXiv 2603.15279, Section 4.1).

    An epoch visits each row once, with one of its noises, in a new random order. `loom.state()` and the history that is
    yielded are all that it takes to resume, through `load_state` and `done`.

    Args:
        batch: rows that exchange noises, at least 2; the last batch of an epoch may be smaller.
        seed: of the orders and the choice of noises.
        max_epochs: the end at the latest, those of `done` among them.
        tolerance: the largest share of reassigned visits in an epoch that counts as converged. Exchanges grow rare long
            before they cease: 0 means an epoch without any.
        done: the history of an earlier run.

    Yields:
        The history so far after each epoch: `epoch` (from 1), `reassigned` (a share of the visits), and `cost_before`
        and `cost_after`, the mean squared distance of image and noise per dimension before and after the exchanges.
        Nothing at all if `done` has converged.
    """
    history = list(done)
    while len(history) < max_epochs and not (history and history[-1]["reassigned"] <= tolerance):
        before = loom.statistics()
        draws = generator(seed, "loom", len(history))
        for rows in torch.randperm(len(examples), generator=draws).split(batch):
            loom.noise_for(examples.pixels(rows), examples.classes(rows), rows, draws)
        sums = {name: value - before[name] for name, value in loom.statistics().items()}
        means = {name: sums[name] / sums["visited"] for name in ("reassigned", "cost_before", "cost_after")}
        history.append({"epoch": len(history) + 1, **means})
        yield list(history)
