"""The 1,797 handwritten digits (UCI; 8x8 pixels, 17 grey levels) that come with scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.data.sources import DataConfig, LoadedData
from pipeline.data.sources.split import limited, named, numbers_of, only_classes, require_enough, stratified
from storage.imageset import Split


def load(config: DataConfig, cache_dir: Path | None) -> LoadedData:
    """Images (N, 1, 8, 8) of values 0 to 16, and ten classes; split by `test_fraction` and `seed`."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = found.images.astype(np.uint8)[:, None]  # (1797, 1, 8, 8)
    labels = found.target.astype(np.int64)
    parts = stratified(labels, config.test_fraction, config.seed)
    classes = [str(name) for name in found.target_names]
    wanted = numbers_of(config.classes, classes, "digits")
    train, test = (limited(only_classes(Split(images[part], labels[part]), wanted), config.limit) for part in parts)
    require_enough("digits", len(train.images), len(test.images))
    return LoadedData("digits", train, test, levels=17, classes=named(classes, wanted))
