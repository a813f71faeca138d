"""The potentials of semidiscrete optimal transport, as their stage leaves them."""

from __future__ import annotations

from safetensors.torch import load

from pipeline.couplings import Potentials
from storage.artifact import Artifact
from storage.errors import reading

POTENTIALS = "potentials.safetensors"


def load_potentials(artifact: Artifact) -> Potentials:
    """The stage's output. Raises DamageError where it cannot be read."""
    with reading(str(artifact.path(POTENTIALS)), "Run with --force potentials to compute them again"):
        return Potentials(**load(artifact.path(POTENTIALS).read_bytes()))
