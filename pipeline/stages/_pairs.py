"""Generated pairs as a training's examples and coupling."""

from __future__ import annotations

import numpy as np

from pipeline.couplings import Banked
from pipeline.data.examples import Examples
from pipeline.outputs.banks import PAIRS, StoredPairs
from pipeline.runtime import ranks
from pipeline.training.mixture import Pairs
from pipeline.training.truncated import RETAINED, Truncated, load_retained
from storage.artifact import Artifact
from storage.bank import Bank


def bank_of(artifact: Artifact) -> Bank:
    """The bank of a stage pairs."""
    return Bank.open(artifact.path(PAIRS))


def retained_of(artifact: Artifact) -> np.ndarray | None:
    """The rows that are trained on, None for all."""
    return load_retained(artifact.path(RETAINED)) if artifact.config.get("drop_longest") else None


def generated(artifact: Artifact, pairs: StoredPairs) -> Pairs:
    """Images by the student, and the coupling that gives their noise, without the longest pairs where the stage pairs
    left those out. `pairs` are those of its bank."""
    assert pairs.x is not None  # the bank is of a stage pairs
    examples = Examples(pairs.x[0], None if pairs.labels is None else pairs.labels[0])
    bank, retained = Banked(pairs.z, ranks.rank(), ranks.world()), retained_of(artifact)
    if retained is None:
        return examples, bank
    left = Truncated(examples, bank, retained)
    return left, left
