"""The feature space and the real statistics that every Frechet distance on a data set is measured in.

One reference serves all recipes on the same data, so that their numbers can share a table.
"""

from __future__ import annotations

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from pipeline.configs import Reference
from pipeline.examples import Examples
from pipeline.job import Job
from pipeline.metrics import (
    Inception,
    Moments,
    Pixels,
    build_classifier,
    features,
    frechet_distance,
    load_inception,
    split_half,
    train_classifier,
)
from pipeline.results import ReferenceResult
from pipeline.runtime import derive, prepare
from pipeline.stages.data import IMAGES
from storage.artifact import Artifact
from storage.atomic import sha256_file, write_bytes
from storage.errors import DamageError
from storage.imageset import ImageSet

EXTRACTOR = "extractor.safetensors"
REAL = "real.safetensors"
KEPT = 10_000  # feature rows, for metrics that need more than means and covariances
# Random halvings that the floor is a mean of. A few thousand images of a few classes need ten, for one alone moves with
# its mix of classes; in Inception's 2,048 features one takes seconds, and its tens of thousands of images need no more.
SPLITS, WIDE = 10, 512
TOGETHER = 512  # images between two looks at the wish to stop


def run(job: Job) -> ReferenceResult:
    device = prepare(job.compute)
    config: Reference = job.config
    images = ImageSet.open(job.inputs["data"].path(IMAGES)).originals
    train, test = (_pixels(Examples.of(images, split)) for split in ("train", "test"))
    network = _extractor(config, images, train, test, device)
    write_bytes(job.out / EXTRACTOR, save({k: v.cpu().contiguous() for k, v in network.state_dict().items()}))
    name = f"{config.extractor}-{sha256_file(job.out / EXTRACTOR)[:12]}"

    real, held_out = (_measured(network, part, job, what) for part, what in ((train, "train"), (test, "test")))
    moments = Moments.of(real)
    arrays = {key: torch.as_tensor(value).contiguous() for key, value in moments.arrays().items()}
    write_bytes(job.out / REAL, save(arrays | {"rows": real[_chosen(len(real), config.seed)]}))
    return ReferenceResult(
        extractor=name, metric=getattr(network, "metric", f"FD-{config.extractor}"),
        facts=getattr(network, "facts", {"resized": "no"}), features=real.shape[1], accuracy=network.accuracy,
        images=len(real), split_half=split_half(real, config.seed, splits=1 if real.shape[1] > WIDE else SPLITS),
        held_out=frechet_distance(moments, Moments.of(held_out)))


def _extractor(config: Reference, images: ImageSet, train: Tensor, test: Tensor, device: torch.device) -> nn.Module:
    if config.extractor == "pixels":
        return Pixels()
    if config.extractor == "inception":
        return load_inception(config.weights, config.checksum).to(device)
    return train_classifier(train, images.train.labels, test, images.test.labels,
                            seed=derive(config.seed, "reference"), device=device)


def _measured(network: nn.Module, images: Tensor, job: Job, what: str) -> Tensor:
    """(N, F) features of all images."""
    parts = []
    for part in images.split(TOGETHER):
        parts.append(features(network, part))
        job.progress(sum(map(len, parts)), len(images), f"{what} images")
        job.pause_point()
    return torch.cat(parts)


def _chosen(count: int, seed: int) -> Tensor:
    """(min(count, KEPT),) rows in rising order, each with the same chance: the first would be of few classes."""
    priorities = np.random.default_rng(seed).random(count)
    return torch.from_numpy(np.sort(np.argsort(priorities, kind="stable")[:KEPT]))


def _pixels(examples: Examples) -> Tensor:
    return examples.pixels(torch.arange(len(examples)))


def load_reference(artifact: Artifact, images: ImageSet, device: torch.device) -> tuple[nn.Module, Moments]:
    """The extractor, and the moments of the real training images in its features. `images` are the originals."""
    kind = artifact.config["extractor"]
    try:
        network: nn.Module = Inception() if kind == "inception" else Pixels() if kind == "pixels" else \
            build_classifier(images.channels, images.size, len(images.classes or ()))
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
    return DamageError(str(artifact.root), f"the reference cannot be read: {error}",
                       "Run with --force reference to make it anew")
