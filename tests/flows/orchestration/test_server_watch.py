"""The watch on a flow run: when its server counts as lost, and how long a finished stage waits for it."""

import threading
import time
from uuid import uuid4

import pytest

from pipeline.runtime.job import StopSignal
from tests.shared import HANGS

SILENT = [OSError("no answer")] * 2  # as often as makes a server count as lost


@pytest.fixture
def watch(prefect_server, monkeypatch):
    """A watch whose server gives the answers of its list one after another, errors or states; then it is closed."""
    from flows.orchestration import server_watch  # it imports Prefect, whose settings the server made

    assert len(SILENT) == server_watch.FAILURES
    monkeypatch.setattr(server_watch, "POLL_SECONDS", 0.0)
    made = server_watch.ServerWatch(uuid4(), StopSignal(), lambda text: None)
    made.answers = []

    class Client:
        closed = False

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            Client.closed = True

        def read_flow_run(self, flow_run):
            answer = made.answers.pop(0)
            if not made.answers:
                made.close()
            if isinstance(answer, Exception):
                raise answer
            return type("FlowRun", (), {"state": answer})

    monkeypatch.setattr(server_watch, "get_client", lambda sync_client: Client())
    yield made
    assert Client.closed


@pytest.mark.parametrize(
    ("answers", "lost"), [("silent", False), ("silent silent", True), ("silent silent running", False)]
)
def test_a_server_is_lost_until_it_answers(watch, answers, lost):
    from prefect.states import Running

    watch.answers = [SILENT[0] if answer == "silent" else Running() for answer in answers.split()]
    watch.poll()
    assert watch.lost == lost


def test_that_a_run_was_deleted_is_an_answer(watch):
    from prefect.exceptions import ObjectNotFound

    watch.answers = [*SILENT, ObjectNotFound(OSError("deleted"))]
    watch.poll()
    assert not watch.lost


def test_who_waits_for_a_lost_server_waits_from_the_loss_on(watch, monkeypatch):
    """Also where the waiting begins in the very moment of the loss."""
    from prefect.exceptions import Abort

    from flows.orchestration import server_watch

    waited = []

    def wait(*words):
        def patient():
            begun = time.monotonic()
            with pytest.raises(Abort):
                watch.wait_if_lost(0.5)
            waited.append(time.monotonic() - begun)

        if watch.lost:
            thread = threading.Thread(target=patient)
            thread.start()
            thread.join(HANGS)

    monkeypatch.setattr(server_watch.logging.getLogger("flowctl"), "debug", wait)
    watch.answers = list(SILENT)
    watch.poll()
    assert waited and waited[0] > 0.3


def test_a_lost_server_is_said_and_a_finished_stage_does_not_wait_for_ever(watch, monkeypatch):
    from prefect.exceptions import Abort
    from prefect.states import Running

    from flows.orchestration import server_watch

    monkeypatch.setattr(server_watch, "POLL_SECONDS", 0.2)
    said, watch.answers = [], [*SILENT, OSError("no answer"), *[Running()] * 50]
    monkeypatch.setattr(
        server_watch, "ServerWatch", lambda flow_run, stop, tell: setattr(watch, "_tell", tell) or watch
    )
    with server_watch.watched(uuid4(), StopSignal(), said.append):
        deadline = time.monotonic() + HANGS
        while not said and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(said) == 1 and watch.lost
        with pytest.raises(Abort):
            watch.wait_if_lost(seconds=0.0)
        watch.wait_if_lost(seconds=HANGS)
        assert not watch.lost and len(said) == 2
