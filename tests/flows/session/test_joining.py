"""A further machine that is stopped: its ranks save with the others where all are stopped."""

import contextlib
import subprocess
import sys

import pytest

from flows.session import joining
from flows.session.session import Session
from pipeline.recipe.load import load
from pipeline.runtime.job import STOP
from storage.errors import UsageError
from tests.flows.faults import fault

RANK = "import pathlib, sys, time\nwhile not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.02)\ntime.sleep(0.2)"


@pytest.fixture
def stopped(finished, tiny, monkeypatch):
    """A second machine that has had SIGTERM; its ranks leave at the first machine's request. (session, ranks)"""
    session = Session.open(load(tiny, ["compute={nnodes: 2, node_rank: 1, rendezvous: 'first:29400'}"]))
    work = session.store.work("teacher", session.nodes["teacher"].fingerprint)
    work.mkdir(parents=True)
    ranks = subprocess.Popen([sys.executable, "-S", "-c", RANK, str(work / STOP)])
    monkeypatch.setattr(joining, "agent", lambda *given: contextlib.nullcontext(ranks))
    monkeypatch.setattr(joining, "POLL", 0.02)
    session.stop.request("SIGTERM")
    yield session, work, ranks
    ranks.kill()
    ranks.wait()


@pytest.mark.parametrize("rank", [0, 1])
def test_force_is_refused_on_every_machine_before_anything_starts(flowctl, home, tiny, rank):
    machines = f"compute={{nnodes: 2, node_rank: {rank}, rendezvous: 'first:29400'}}"
    assert type(fault(flowctl("run", tiny, "--set", machines, "--force", "student"))) is UsageError
    assert not home.exists()


def test_ranks_that_are_asked_by_the_first_machine_are_waited_for(stopped):
    session, work, ranks = stopped
    (work / STOP).touch()
    joining._run_ranks(session.nodes["teacher"], work, session)
    assert ranks.returncode == 0


def test_where_the_first_machine_goes_on_they_are_not(stopped, monkeypatch):
    session, work, ranks = stopped
    monkeypatch.setattr(joining, "ALONE_SECONDS", 0.0)
    joining._run_ranks(session.nodes["teacher"], work, session)
    assert ranks.returncode is None
