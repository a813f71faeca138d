"""The watch on a flow run: when its server counts as lost, and how long a finished stage waits for it."""

import threading
import time
from uuid import uuid4

import pytest
from prefect.client.schemas import State
from prefect.client.schemas.objects import StateType
from prefect.exceptions import Abort, ObjectNotFound

from flows.orchestration import server_watch
from flows.orchestration.server_watch import FAILURES, ServerWatch
from pipeline.runtime.job import StopSignal
from tests.shared import HANGS


@pytest.fixture
def watch(monkeypatch):
    """A watch whose server gives the answers of its list one after another, errors or states; then it is closed."""
    monkeypatch.setattr(server_watch, "POLL_SECONDS", 0.0)
    made = ServerWatch(uuid4(), StopSignal(), lambda text: None)
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


RUNNING = State(type=StateType.RUNNING)
SILENT = [OSError("no answer")] * FAILURES


@pytest.mark.parametrize(
    ("answers", "lost"),
    [
        (SILENT[1:], False),
        (SILENT, True),
        ([*SILENT, RUNNING], False),
        ([*SILENT, ObjectNotFound(OSError("deleted"))], False),  # which is an answer
    ],
)
def test_a_server_is_lost_until_it_answers(watch, answers, lost):
    watch.answers = list(answers)
    watch.poll()
    assert watch.lost == lost


def test_who_waits_for_a_lost_server_waits_from_the_loss_on(watch, monkeypatch):
    """Also where the waiting begins in the very moment of the loss."""
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
