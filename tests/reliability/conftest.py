"""The command line with stages that need no training, as tests/flows has it, and a real store of a tiny recipe."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import crash_recipes
from pipeline.engine.execute import Outcome, execute
from pipeline.recipe.load import load
from storage.store import Store
from tests.flows.conftest import finished, flowctl, home, program, tiny  # noqa: F401 - fixtures
from tests.shared import brief_figures, once

COMPUTE = load(*crash_recipes.RECIPES["NFM"]).compute
NODES = crash_recipes.nodes()
#: Every kind of payload that there is, in the order of the DAG.
PAYLOADS = [
    *(
        f"NFM: {stage}"
        for stage in ("data", "reference", "teacher", "bank", "student", "pairs", "onestep", "evaluation")
    ),
    "LOOM: student",
    "semidiscrete: potentials",
]


def make(store: Store, name: str, **options) -> Outcome:
    """One stage, by `recipe: stage`, of inputs that are there."""
    node = NODES[name]
    inputs = {role: store.find(role, source.fingerprint) for role, source in node.inputs.items()}
    return execute(node, inputs, store, COMPUTE, **options)


def root_of(store: Store, name: str) -> Path:
    return store.find(NODES[name].name, NODES[name].fingerprint).root


def digests(store: Store, name: str) -> dict[str, Any]:
    """SHA-256 of each file of an artifact; of scores, which have times beside them, what was measured."""
    artifact = store.find(NODES[name].name, NODES[name].fingerprint)
    found: dict[str, Any] = {record.path: record.sha256 for record in artifact.files}
    if "scores.json" in found:
        found["scores.json"] = [score | {"seconds": 0} for score in artifact.metrics["scores"]]
    return found


@pytest.fixture(scope="package", autouse=True)
def figures() -> Iterator[None]:
    with brief_figures(previews=4):
        yield


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """All payloads by the real stages. Not to be changed."""

    def payloads(folder: Path) -> None:
        store = Store(folder)
        store.prepare()
        with brief_figures(previews=4):
            for name in PAYLOADS:
                make(store, name)

    return Store(once(tmp_path_factory, "real", payloads))


@pytest.fixture
def copied(real: Store, tmp_path: Path) -> Callable[..., Store]:
    """A copy of the real store, without some artifacts. Its files are links: replace them, never write into them."""

    def copy(*without: str) -> Store:
        store = Store(tmp_path / f"copy-{len(list(tmp_path.iterdir()))}")
        shutil.copytree(real.home / "artifacts", store.home / "artifacts", copy_function=os.link)
        store.prepare()
        for name in without:
            shutil.rmtree(root_of(store, name))
        return store

    return copy
