"""The feature space and the real statistics that every Frechet distance on a data set is measured in.

One reference serves all recipes on the same data, so that their numbers can share a table.
"""

from __future__ import annotations

import json

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from pipeline.configs import Reference
from pipeline.examples import Examples
from pipeline.job import Job
from pipeline.metrics import Moments, Pixels, build_classifier, features, frechet_distance, split_half, train_classifier
from pipeline.results import ReferenceResult
from pipeline.runtime import derive, prepare
from pipeline.stages.data import IMAGES
from storage.artifact import Artifact
from storage.atomic import sha256_file, write_bytes, write_json
from storage.errors import DamageError
from storage.imageset import ImageSet, Split

EXTRACTOR = "extractor.safetensors"
MOMENTS = "moments.json"
SPLITS = 10  # random halvings that the floor is a mean of: one alone moves with its mix of classes


def run(job: Job) -> ReferenceResult:
    device = prepare(job.compute)
    config: Reference = job.config
    images = ImageSet.open(job.inputs["data"].path(IMAGES)).originals
    train, test = _pixels(images.train, images.levels), _pixels(images.test, images.levels)
    if config.extractor == "pixels":
        network: nn.Module = Pixels()
    else:
        network = train_classifier(train, images.train.labels, test, images.test.labels,
                                   seed=derive(config.seed, "reference"), device=device)
    write_bytes(job.out / EXTRACTOR, save({k: v.cpu().contiguous() for k, v in network.state_dict().items()}))
    real, held_out = features(network, train), features(network, test)
    moments = Moments.of(real)
    write_json(job.out / MOMENTS, {key: np.asarray(value).tolist() for key, value in moments.arrays().items()})
    floor = split_half(real, config.seed, splits=SPLITS)
    name = f"{config.extractor}-{sha256_file(job.out / EXTRACTOR)[:12]}"
    return ReferenceResult(extractor=name, features=real.shape[1], accuracy=network.accuracy, images=len(real),
                           split_half=floor,
                           held_out=frechet_distance(moments, Moments.of(held_out)))


def _pixels(split: Split, levels: int) -> Tensor:
    return Examples(split.images, split.labels, levels).pixels(torch.arange(len(split.images)))


def load_reference(artifact: Artifact, images: ImageSet, device: torch.device) -> tuple[nn.Module, Moments]:
    """The extractor, and the moments of the real training images in its features. `images` are the originals."""
    try:
        plain = artifact.config["extractor"] == "pixels"
        network = Pixels() if plain else build_classifier(images.channels, images.size, len(images.classes or ()))
        network.load_state_dict(load(artifact.path(EXTRACTOR).read_bytes()))
        moments = Moments.from_arrays({key: np.asarray(value) for key, value in
                                       json.loads(artifact.path(MOMENTS).read_bytes()).items()})
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise DamageError(str(artifact.root), f"the reference cannot be read: {error}",
                          "Run with --force reference to make it anew") from None
    return network.to(device).eval(), moments
