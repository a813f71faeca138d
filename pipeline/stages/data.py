"""Images into one image set: grey levels, labels, classes, train and test split."""

from __future__ import annotations

from pipeline.data import load
from pipeline.job import Job
from pipeline.results import DataResult
from storage.imageset import ImageSet, write_imageset

IMAGES = "images.zarr"


def run(job: Job) -> DataResult:
    loaded = load(job.config)
    path = job.out / IMAGES
    write_imageset(path, loaded.name, loaded.train, loaded.test, levels=loaded.levels, classes=loaded.classes)
    images = ImageSet.open(path)
    count = len(images.train.images) + len(images.test.images)
    job.progress(count, count, "images")
    return DataResult(name=images.name, train=len(images.train.images), test=len(images.test.images),
                      channels=images.channels, size=images.size, levels=images.levels,
                      classes=tuple(images.classes) if images.classes else None)
