"""One store for all tests of real stages, which share what several of them need; and a classifier of few steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.metrics import _classifier


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="package", autouse=True)
def few_steps_of_the_classifier() -> Iterator[None]:
    """Its 400 steps take longer than all other stages together; tests/pipeline/metrics trains it to the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_classifier, "_STEPS", 40)
        patch.setattr(_classifier, "_EPOCHS", 1)
        yield
