"""The facts that scores of one evaluation have in common: they decide which numbers share a table."""

from __future__ import annotations

from typing import Any

from pipeline.data.conditions import TargetImages
from pipeline.outputs.images import autoencoder_of
from pipeline.recipe.sections import Evaluation
from pipeline.runtime.job import Job
from storage.imageset import ImageSet


def different_samples(job: Job[Evaluation], images: ImageSet) -> int:
    """Samples that can differ: the same source image with the same class gives the same sample."""
    samples = job.config.samples
    if "source" not in job.inputs:
        return samples
    return min(samples, job.inputs["source"].metrics["test"] * len(images.classes or " "))


def shared_protocol(job: Job[Evaluation], images: ImageSet, targets: TargetImages | None) -> dict[str, Any]:
    """The facts that scores of one table have in common."""
    config = job.config
    reference = job.inputs["reference"]
    return {
        "metric": reference.metrics["metric"],
        "extractor": reference.metrics["extractor"],
        "reference": reference.fingerprint[:12],
        "data": images.name,
        "split": "train",
        "n_real": reference.metrics["images"],
        "n_held_out": job.inputs["data"].metrics["test"],
        "n_fake": config.samples,
        "quantised": f"{images.originals.grey_levels} levels, rounded half up",
        "labels": "in the proportions of the training split" if images.classes else "none",
        "seed": job.seed,
        **_image_to_image(job, targets),
        **reference.metrics["facts"],
        **autoencoder_of(job.inputs["data"]),
    }


def _image_to_image(job: Job[Evaluation], targets: TargetImages | None) -> dict[str, Any]:
    """The condition or the source images of the samples, where there are any."""
    if targets is not None:
        classes = {} if targets.examples.labels is None else {"labels": "those of the test images"}
        return {"condition": targets.words} | classes
    if "source" in job.inputs:
        source = job.inputs["source"]
        return {
            "start": f"{source.metrics['name']} {source.fingerprint[:12]}, test split, {source.metrics['test']} "
            "images in turn"
        }
    return {}
