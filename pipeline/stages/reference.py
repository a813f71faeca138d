"""The feature space and the real statistics that every Frechet distance on a data set is measured in.

One reference serves all recipes on the same data, so that their numbers can share a table.
"""

from __future__ import annotations

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from pipeline.data.examples import Examples
from pipeline.metrics import Moments, Pixels, features, frechet_distance, load_inception, split_half, train_classifier
from pipeline.outputs.images import IMAGES
from pipeline.outputs.reference import EXTRACTOR, KEPT, REAL
from pipeline.outputs.results import ReferenceResult
from pipeline.recipe.sections import Reference
from pipeline.runtime.device import prepare
from pipeline.runtime.job import Job
from pipeline.runtime.seeds import derive
from storage.atomic import sha256_file, write_bytes
from storage.imageset import ImageSet

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
        extractor=name,
        metric=getattr(network, "metric", f"FD-{config.extractor}"),
        facts=getattr(network, "facts", {"resized": "no"}),
        features=real.shape[1],
        accuracy=network.accuracy,
        images=len(real),
        split_half=split_half(real, config.seed, splits=1 if real.shape[1] > WIDE else SPLITS),
        held_out=frechet_distance(moments, Moments.of(held_out)),
    )


def _extractor(config: Reference, images: ImageSet, train: Tensor, test: Tensor, device: torch.device) -> nn.Module:
    if config.extractor == "pixels":
        return Pixels()
    if config.extractor == "inception":
        return load_inception(config.weights, config.checksum).to(device)
    return train_classifier(
        train, images.train.labels, test, images.test.labels, seed=derive(config.seed, "reference"), device=device
    )


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
