"""One store for all tests of real stages, which share what they need, and little work beside the training itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.metrics import _classifier
from pipeline.training import _fit


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="package", autouse=True)
def little_work() -> Iterator[None]:
    """400 steps of the classifier take longer than all other stages together, and eight previews longer than a training
    of a few steps. tests/pipeline/metrics trains the classifier to the end, and test_quality has all previews."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_classifier, "_STEPS", 40)
        patch.setattr(_classifier, "_EPOCHS", 1)
        patch.setattr(_fit, "PREVIEW_POINTS", 2)
        yield
