"""Random order that is a function of its key, and stays the same from one NumPy release to the next."""

from __future__ import annotations

import hashlib

import numpy as np


def permutation(n: int, *key: int | str) -> np.ndarray:
    """A permutation of range(n), int64 (n,), determined by `key`.

    RandomState's stream is frozen by NumPy's policy, that of Generator is not. The key is hashed, for SeedSequence
    takes [1] and [1, 0] for the same seed.
    """
    entropy = int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:16], "big")
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(entropy))).permutation(n).astype(np.int64)
