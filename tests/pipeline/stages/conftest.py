"""One store for all tests of real stages, which share what they need, and little work beside the training itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.metrics import _classifier
from tests.shared import brief_figures, once


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "stages", lambda home: None)


@pytest.fixture(scope="package", autouse=True)
def little_work() -> Iterator[None]:
    """400 steps of the classifier take longer than all other stages together: tests/pipeline/metrics has them."""
    with brief_figures() as patch:
        patch.setattr(_classifier, "_STEPS", 40)
        patch.setattr(_classifier, "_EPOCHS", 1)
        yield
