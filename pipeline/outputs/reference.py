"""The feature extractor and the real statistics, as the reference stage leaves them."""

from __future__ import annotations

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from pipeline.metrics import Inception, Moments, Pixels, build_classifier
from storage.artifact import Artifact
from storage.errors import DamageError
from storage.imageset import ImageSet

EXTRACTOR = "extractor.safetensors"
REAL = "real.safetensors"
KEPT = 10_000  # feature rows, for metrics that need more than means and covariances


def load_reference(artifact: Artifact, images: ImageSet, device: torch.device) -> tuple[nn.Module, Moments]:
    """The extractor, and the moments of the real training images in its features. `images` are the originals."""
    kind = artifact.config["extractor"]
    try:
        network: nn.Module = (
            Inception()
            if kind == "inception"
            else Pixels()
            if kind == "pixels"
            else build_classifier(images.channels, images.size, len(images.classes or ()))
        )
        network.load_state_dict(load(artifact.path(EXTRACTOR).read_bytes()))
        arrays = load(artifact.path(REAL).read_bytes())
        moments = Moments.from_arrays({name: arrays[name].numpy() for name in ("count", "mean", "scatter")})
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise _damaged(artifact, error) from None
    return network.to(device).eval(), moments


def load_rows(artifact: Artifact) -> Tensor:
    """(n, F) float32: features of real training images, at most `KEPT` of them, chosen at random."""
    try:
        return load(artifact.path(REAL).read_bytes())["rows"]
    except (OSError, KeyError, SafetensorError) as error:
        raise _damaged(artifact, error) from None


def _damaged(artifact: Artifact, error: Exception) -> DamageError:
    return DamageError(
        str(artifact.root), f"the reference cannot be read: {error}", "Run with --force reference to make it anew"
    )
