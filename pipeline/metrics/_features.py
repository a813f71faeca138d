"""A bounded sample of feature rows, for metrics that need more than means and covariances."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from storage.errors import InputError


class Features:
    """Up to `maximum` rows drawn without replacement from all that pass by, each with the same chance.

    Every row has a random priority that follows from the seed and its place in the order, and those of the lowest
    priorities stay. So which rows stay does not depend on the batches they come in, and a data set sorted by class
    leaves rows of all classes, which taking the first would not.

    Args:
        maximum: rows kept; 10,000 of 2,048 features are 82 MB.
        seed: of the choice.

    Attributes:
        count: rows seen.
    """

    def __init__(self, maximum: int = 10_000, seed: int = 0) -> None:
        if maximum < 1:
            raise InputError("A sample of features keeps one or more", maximum, "Raise the maximum.")
        self.maximum = maximum
        self.count = 0
        self._generator = np.random.default_rng(seed)
        self._priorities = np.empty(0)
        self._parts: list[Tensor] = []  # whose rows have these priorities

    def update(self, features: Tensor) -> Features:
        """Take in a batch, (b, F) float32, and return self.

        Raises:
            InputError: another F than before.
        """
        features = features.detach().cpu()
        if features.ndim != 2 or (self._parts and features.shape[1] != self._parts[0].shape[1]):
            wanted = self._parts[0].shape[1] if self._parts else "F"
            raise InputError(f"Features have the shape (n, {wanted})", tuple(features.shape),
                             "Use one extractor throughout.")
        self._priorities = np.concatenate([self._priorities, self._generator.random(len(features))])
        self._parts.append(features)
        self.count += len(features)
        if len(self._priorities) > 2 * self.maximum:  # not after every batch: each time copies all rows that stay
            self._thin()
        return self

    @property
    def rows(self) -> Tensor:
        """(min(count, maximum), F) float32 on the CPU, in the order they came.

        Raises:
            InputError: there were none.
        """
        if not self._parts:
            raise InputError("A sample of features has had some", 0, "Give it features first.")
        self._thin()
        return self._parts[0]

    def _thin(self) -> None:
        """Keep the rows of the lowest priorities, as one part."""
        stay = np.sort(np.argsort(self._priorities, kind="stable")[: self.maximum])
        self._parts = [torch.cat(self._parts)[torch.from_numpy(stay)]]
        self._priorities = self._priorities[stay]
