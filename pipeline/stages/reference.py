"""The feature space of a data set, and the statistics of its training and held-out images in it.

One reference serves all recipes on the same data, so that their numbers can share a table.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.data.examples import Examples
from pipeline.metrics import (
    FEATURE_ROWS,
    Moments,
    Pixels,
    features,
    frechet_distance,
    load_inception,
    split_half,
    train_classifier,
)
from pipeline.outputs.images import images_of
from pipeline.outputs.reference import EXTRACTOR, HELD_OUT, REAL
from pipeline.outputs.results import ReferenceResult
from pipeline.outputs.tensorfile import write_tensors
from pipeline.recipe.sections import Reference
from pipeline.runtime.device import prepare
from pipeline.runtime.job import Job
from pipeline.runtime.seeds import derive
from storage.atomic import sha256_file
from storage.imageset import ImageSet

# Random halvings that the floor is a mean of. A few thousand images of a few classes need ten, for one alone moves with
# its mix of classes; in Inception's 2,048 features one takes seconds, and its tens of thousands of images need no more.
SPLITS, WIDE = 10, 512
FEATURE_BATCH = 512  # images between two stop points


def run(job: Job[Reference]) -> ReferenceResult:
    """Train or load the extractor, and measure both splits with it.

    Inputs: `data`, of which the images themselves count, with all their classes.

    Leaves: the extractor, and of each split mean, covariance and some features. The result has the yardsticks: the
    Frechet distance of two halves of the training images, and that of held-out to training images.
    """
    device = prepare(job.compute)
    config = job.config
    images = images_of(job).originals
    train, test = (_pixels(Examples.of(images, split)) for split in ("train", "test"))
    with job.timings.measure("extractor", 1):
        network = _extractor(config, images, train, test, job.seed, device)
    write_tensors(job.out / EXTRACTOR, network.state_dict())
    name = f"{config.extractor}-{sha256_file(job.out / EXTRACTOR)[:12]}"

    real, held_out = (_measured(network, part, job, what) for part, what in ((train, "train"), (test, "test")))
    of_train, of_test = (_written(job, file, part, job.seed) for file, part in ((REAL, real), (HELD_OUT, held_out)))
    return ReferenceResult(
        extractor=name,
        metric=getattr(network, "metric", f"FD-{config.extractor}"),
        facts=getattr(network, "facts", {"resized": "no"}),
        features=real.shape[1],
        accuracy=network.accuracy,
        images=len(real),
        split_half=split_half(real, job.seed, splits=1 if real.shape[1] > WIDE else SPLITS),
        held_out=frechet_distance(of_train, of_test),
    )


def _extractor(
    config: Reference, images: ImageSet, train: Tensor, test: Tensor, seed: int, device: torch.device
) -> nn.Module:
    if config.extractor == "pixels":
        return Pixels()
    if config.extractor == "inception":
        return load_inception(config.weights, config.checksum).to(device)
    return train_classifier(
        train, images.train.labels, test, images.test.labels, seed=derive(seed, "reference"), device=device
    )


def _measured(network: nn.Module, images: Tensor, job: Job, what: str) -> Tensor:
    """(N, F) features of all images."""
    parts = []
    for part in images.split(FEATURE_BATCH):
        with job.timings.measure("features", len(part)):
            parts.append(features(network, part))
        job.progress(sum(map(len, parts)), len(images), f"{what} images")
        job.pause_point()
    return torch.cat(parts)


def _written(job: Job, file: str, rows: Tensor, seed: int) -> Moments:
    """The moments of features (N, F), written to `file` with at most `FEATURE_ROWS` of the features themselves."""
    moments = Moments.of(rows)
    arrays = {key: torch.as_tensor(value) for key, value in moments.arrays().items()}
    write_tensors(job.out / file, arrays | {"rows": rows[_chosen(len(rows), seed)]})
    return moments


def _chosen(count: int, seed: int) -> Tensor:
    """(min(count, FEATURE_ROWS),) rows in rising order, all equally likely: the first would be of few classes."""
    priorities = np.random.default_rng(seed).random(count)
    return torch.from_numpy(np.sort(np.argsort(priorities, kind="stable")[:FEATURE_ROWS]))


def _pixels(examples: Examples) -> Tensor:
    return examples.pixels(torch.arange(len(examples)))
