"""A store per test, stages that need no training, and one Prefect server for the tests that need it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows import api
from flows.session import forecasts
from flows.session.recording import recording, run_stages
from flows.session.session import Session
from pipeline.engine.execute import execute
from pipeline.engine.plan import plan
from pipeline.recipe.load import load
from pipeline.recipe.recipe import Recipe
from storage.artifact import MANIFEST
from storage.store import Store
from tests.flows import chromium, fakes
from tests.shared import brief_figures, once
from tests.tiny import TINY

ROOT = Path(__file__).parents[2]
RECIPE = """
name: tiny
data: {source: digits}
teacher: {patch: 2, width: 8, blocks: 1, layers: 1, head_dim: 8, training: {images: 8, batch: 4, lr: 0.1, ema: 4}}
bank: {draws_per_image: 1}
student:
  coupling: nfm
  network: {base: 8, multipliers: [1], attention: [8], head_channels: 8}
  training: {images: 8, batch: 4, lr: 0.1, ema: 4}
evaluation: {samples: 16, student: [{nfe: [1, 2]}]}
"""  # stages: data, reference, teacher, bank, student, evaluation, report


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store that commands find, fake stages, and no Prefect server named."""
    monkeypatch.setenv("FLOWCTL_HOME", str(tmp_path / "store"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.delenv("FAKES", raising=False)
    fakes.install(monkeypatch.setattr)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    return tmp_path / "store"


@pytest.fixture
def not_under_nohup() -> Iterator[None]:
    """SIGHUP has its default, however these tests were started."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def tiny(home: Path) -> str:
    """The path of a small recipe."""
    return str(home.parent / "tiny.yaml")


@pytest.fixture
def finished(tiny: str) -> Session:
    """A store with every artifact of the small recipe, made without Prefect."""
    return make_all(load(tiny))


def make_all(recipe: Recipe) -> Session:
    session = Session.open(recipe)
    session.store.prepare()
    made = {}
    for name, node in session.nodes.items():
        inputs = {role: made[role] for role in node.inputs}
        made[name] = execute(node, inputs, session.store, recipe.compute).artifact
    return session


def written(stage: str, fingerprint: str) -> int:
    """When an artifact's manifest was written, in nanoseconds: its provenance says whole seconds."""
    return Store().find(stage, fingerprint).path(MANIFEST).stat().st_mtime_ns


@pytest.fixture
def flowctl():
    """Call the command line in this process: `flowctl("plan", recipe)`."""
    from flows.cli import app

    def call(*words: str):
        return CliRunner().invoke(app, [str(word) for word in words])

    return call


@pytest.fixture
def program(home: Path):
    """Start the command line with the fake stages in a process of its own."""
    started = []

    def start(*words: str, **environment: str) -> subprocess.Popen:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.flows.fakes", *map(str, words)],
            cwd=ROOT,
            text=True,
            env=clean | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


TINY_CHANGES = dict(override.split("=", 1) for override in [*TINY[1:], "reference.extractor=pixels"])


@pytest.fixture(scope="session")
def trained_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of nfm-digits with `TINY_CHANGES`, run in this process up to its evaluation."""

    def train(home: Path) -> None:
        session = Session.open(api.load("nfm-digits", TINY_CHANGES).settings, until="evaluation", home=home)
        session.store.prepare()
        with brief_figures() as patch:
            patch.setattr(
                forecasts, "stage_times", lambda session, steps, gpu=None: {}
            )  # to count the work takes seconds
            patch.setattr(forecasts, "learn", lambda session, node, outcome: None)
            with recording(session, plan(session.nodes, session.store)):
                run_stages(session)

    return once(tmp_path_factory, "trained", train)


@pytest.fixture
def trained(trained_home: Path, monkeypatch: pytest.MonkeyPatch) -> api.Recipe:
    """The recipe of `trained_home`, which the test must leave as it is."""
    monkeypatch.setenv("FLOWCTL_HOME", str(trained_home))
    return api.load("nfm-digits", TINY_CHANGES)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[chromium.Page]:
    """A headless browser's page."""
    with chromium.chromium(tmp_path / "profile") as page:
        yield page


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory, migrated: Callable[[Path], None]) -> Iterator[str]:
    """One embedded server for all flows that run in this process; Prefect is imported here, after its settings."""
    from flows.orchestration.server import EmbeddedServer
    from flows.session.settings import configure

    before = dict(os.environ)
    configure()
    home = tmp_path_factory.mktemp("server")
    migrated(home)
    server = EmbeddedServer(home / "prefect")
    import flows.orchestration.pipeline_flow  # noqa: F401

    server.wait()
    os.environ.clear()
    os.environ.update(before)  # Prefect has read its settings
    yield server.url
