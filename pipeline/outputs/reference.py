"""The feature extractor and the statistics of real images, as the reference stage writes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from safetensors.torch import load
from torch import Tensor, nn

from pipeline.metrics import Inception, Moments, Pixels, build_classifier
from storage.artifact import Artifact
from storage.errors import reading
from storage.imageset import ImageSet

EXTRACTOR = "extractor.safetensors"
REAL, HELD_OUT = "real.safetensors", "held-out.safetensors"  # of the training and of the test images
REMEDY = "Run with --force reference to compute it again"


@dataclass(frozen=True)
class RealFeatures:
    """The real images of one split in the features of the extractor.

    Attributes:
        moments: of all images.
        rows: (n, F) float32, features of at most `pipeline.metrics.FEATURE_ROWS` images, chosen at random.
    """

    moments: Moments
    rows: Tensor


def load_features(artifact: Artifact, split: Literal["train", "test"]) -> RealFeatures:
    """The features of a split's images. Raises DamageError where they cannot be read."""
    with reading(f"the reference {artifact.root}", REMEDY):
        arrays = load(artifact.path(REAL if split == "train" else HELD_OUT).read_bytes())
        moments = Moments.from_arrays({name: arrays[name].numpy() for name in ("count", "mean", "scatter")})
        return RealFeatures(moments, arrays["rows"])


def load_extractor(artifact: Artifact, images: ImageSet, device: torch.device) -> nn.Module:
    """The network of the features; `images` are the originals. Raises DamageError where it cannot be read."""
    kind = artifact.config["extractor"]
    network: nn.Module = (
        Inception()
        if kind == "inception"
        else Pixels()
        if kind == "pixels"
        else build_classifier(images.channels, images.size, len(images.classes or ()))
    )
    with reading(f"the reference {artifact.root}", REMEDY):
        network.load_state_dict(load(artifact.path(EXTRACTOR).read_bytes()))
    return network.to(device).eval()
