"""Deployments on a real server, run by a real worker: what the buttons of the UI do to a run, and what death does."""

import json
import os
import signal
import time

import pytest

from tests.flows.conftest import RECIPE
from tests.flows.worker import workshop

pytestmark = pytest.mark.slow
STAGES = ["data", "reference", "teacher", "bank", "student", "evaluation", "report"]
# The bank takes a minute, which leaves time to stop them; the student fails once.
FAKES = json.dumps({"bank": {"steps": 120, "seconds": 0.5}, "student": {"steps": 4, "fail": "ValueError", "times": 1}})


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workshop")
    (folder / "tiny.yaml").write_text(RECIPE + "compute: {device: cpu}\n")
    with workshop(folder) as made:
        said = made.deploy(str(folder / "tiny.yaml"))
        assert "flowctl/tiny" in said and "prefect worker start --pool flowctl" in said
        yield made


@pytest.fixture
def worker(shop):
    process = shop.work(FAKES=FAKES)
    yield process
    process.kill()
    process.wait()


def _suspended():
    return {"type": "PAUSED", "name": "Suspended", "state_details": {"pause_reschedule": True}}


def test_the_life_of_a_run(shop, worker):
    """Suspended, resumed, preempted, killed, failed, retried: it never starts from the beginning again."""
    run = shop.start("tiny")
    shop.until(lambda: shop.saved("bank") >= 3)
    assert shop.api(f"flow_runs/{run}")["name"] == "tiny, seed 0"

    shop.set_state(run, _suspended())
    shop.until(lambda: "paused in Prefect: saving" in shop.logs(run))
    shop.until(lambda: not os.path.exists(f"/proc/{shop.pid()}"))
    paused_at = shop.saved("bank")
    assert shop.state(run) == "Suspended" and 3 <= paused_at < 120
    shop.api(f"flow_runs/{run}/resume", {})

    shop.until(lambda: shop.saved("bank") > paused_at)
    # A bare Paused, as the API sets it: Prefect would resume it in a process that has ended.
    shop.set_state(run, {"type": "PAUSED", "name": "Paused"})
    shop.reaches(run, "Suspended")
    shop.until(lambda: not os.path.exists(f"/proc/{shop.pid()}"))
    paused_at = shop.saved("bank")
    shop.api(f"flow_runs/{run}/resume", {})

    shop.until(lambda: shop.saved("bank") > paused_at)
    os.kill(shop.pid(), signal.SIGTERM)
    shop.reaches(run, "AwaitingRetry", "Pending", "Running")
    assert shop.saved("bank") > paused_at
    preempted_at = shop.saved("bank")

    shop.until(lambda: shop.saved("bank") > preempted_at)
    os.kill(shop.pid(), signal.SIGKILL)
    shop.reaches(run, "Crashed")
    # Prefect's worker reports a death twice, seconds apart; the second report would undo a retry of between.
    shop.until(lambda: "flow_runs.worker - Check whether the flow run exceeded" in shop.worker_said())
    killed_at = shop.saved("bank")
    shop.retry(run)
    shop.reaches(run, "Failed")
    assert "Stage student" in shop.message(run) and "boom" in shop.message(run)
    assert shop.tasks(run)[-2:] == [("bank", "Resumed"), ("student", "Failed")] and killed_at > preempted_at
    shop.until(lambda: "Traceback" in shop.logs(run))  # logs come seconds after the state
    assert "ValueError: boom" in shop.logs(run)

    shop.retry(run)
    shop.reaches(run, "Completed")
    assert shop.message(run) == "4 reused, 1 resumed, 2 run"
    shop.until(lambda: len(shop.tasks(run)) == 7)
    names = [f"{stage} (reused)" for stage in STAGES[:4]] + STAGES[4:]
    assert shop.tasks(run) == list(zip(names, ["Reused"] * 4 + ["Resumed", "Completed", "Completed"], strict=True))
    assert {"tiny-seed-0-scores", "tiny-seed-0-samples"} <= set(shop.artifacts(run))


def test_cancelling_saves_first(shop, worker):
    run = shop.start("tiny")
    # Everything is there: only a recipe of another seed has work to do.
    shop.reaches(run, "Reused")
    assert shop.message(run) == "7 reused"
    found = shop.api("deployments/name/flowctl/tiny")
    recipe = found["parameters"]["recipe"] | {"seed": 5}
    run = shop.api(f"deployments/{found['id']}/create_flow_run", {"parameters": {"recipe": recipe}})["id"]
    shop.until(lambda: shop.saved("bank") >= 3)
    shop.set_state(run, {"type": "CANCELLING", "name": "Cancelling"})
    shop.reaches(run, "Cancelled")
    shop.until(lambda: not os.path.exists(f"/proc/{shop.pid()}"))
    assert shop.state(run) == "Cancelled"
    time.sleep(5)  # logs come seconds after the state
    assert "Traceback" not in shop.logs(run) + shop.worker_said()
    cancelled_at = shop.saved("bank")

    shop.retry(run)
    shop.until(lambda: shop.saved("bank") > cancelled_at)
    # The worker takes its processes along when it is asked to leave. The next to look offers the run again.
    worker.send_signal(signal.SIGINT)
    worker.wait(60)
    pid = shop.pid()
    shop.until(lambda: not os.path.exists(f"/proc/{pid}"))
    assert shop.state(run) == "Running"
    shop.deploy(str(shop.folder / "tiny.yaml"))
    assert shop.state(run) == "AwaitingRetry"
    again = shop.work(FAKES="{}")
    shop.reaches(run, "Completed")
    assert ("bank", "Resumed") in shop.tasks(run)
    again.kill()


def test_wrong_parameters_fail_at_once_and_are_not_tried_again(shop, worker):
    found = shop.api("deployments/name/flowctl/tiny")
    recipe = found["parameters"]["recipe"] | {"sede": 5}
    run = shop.api(f"deployments/{found['id']}/create_flow_run", {"parameters": {"recipe": recipe}})["id"]
    shop.reaches(run, "Failed")
    assert "unknown key. Did you mean 'seed'?" in shop.message(run)
