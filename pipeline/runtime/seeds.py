"""Seeds that follow from a path of words."""

from __future__ import annotations

import hashlib

import torch


def derive(*words: int | str) -> int:
    """A 63-bit seed that follows from a path of words, such as (7, "teacher", "order", 3)."""
    digest = hashlib.sha256("\0".join(f"{type(word).__name__}:{word}" for word in words).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*words: int | str) -> torch.Generator:
    """A CPU generator seeded by `derive`: any draw can be repeated without those before it.

    Torch's generator on the CPU takes the low 32 bits of a seed: of 100,000 steps, some two probably draw the same.
    """
    return torch.Generator().manual_seed(derive(*words))
