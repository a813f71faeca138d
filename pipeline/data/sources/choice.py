"""What the recipe chooses of a data set that has classes: which of them, how many images, of what size."""

from __future__ import annotations

from pipeline.data.sources.loaded import LoadedData
from pipeline.data.sources.shrink import shrink
from pipeline.data.sources.split import select
from pipeline.data.sources.text import listed
from pipeline.recipe.sections import Data
from storage.imageset import Split
from storage.required import required


def chosen(config: Data, train: Split, test: Split, classes: list[str], levels: int = 256) -> LoadedData:
    """Apply `config` to a data set with classes: `classes`, `limit`, `small_classes` and `size`."""
    of_train, of_test = (required(split.labels, "the classes of the data set") for split in (train, test))
    some = select(config, config.source, of_train, of_test, classes)
    splits = (some.split(train.images, of_train, some.train), some.split(test.images, of_test, some.test))
    train, test = (Split(shrink(split.images, config.size), split.labels) for split in splits)
    notes = [f"{len(some.dropped)} classes are dropped as too small: {listed(some.dropped)}"] if some.dropped else []
    return LoadedData(config.source, train, test, levels, some.named(classes), notes=notes)
