"""The 1,797 handwritten digits (UCI; 8x8 pixels, 17 grey levels) that come with scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.data.sources import DataConfig, LoadedData, chosen
from pipeline.data.sources.split import stratified
from storage.imageset import Split


def load(config: DataConfig, cache_dir: Path | None) -> LoadedData:
    """Images (N, 1, 8, 8) of values 0 to 16, and ten classes; split by `test_fraction` and `seed`."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = digits.images.astype(np.uint8)[:, None]  # (1797, 1, 8, 8)
    labels = digits.target.astype(np.int64)
    train, test = (Split(images[rows], labels[rows]) for rows in stratified(labels, config.test_fraction, config.seed))
    return chosen(config, train, test, [str(name) for name in digits.target_names], levels=17)
