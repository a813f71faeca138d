"""`status`: what runs in other processes, and what was stopped."""

import fcntl
import json
import shutil

import pytest

from flows.session.runs import RunRecord
from flows.session.session import Session
from flows.upkeep import status
from pipeline.engine.plan import outline, plan
from pipeline.recipe.load import load
from pipeline.runtime.job import read_saved
from storage.atomic import write_json


def _work(home, tiny, stage):
    node = Session.open(load(tiny)).nodes[stage]
    from storage.store import Store

    work = Store(home).work(stage, node.fingerprint)
    work.mkdir(parents=True)
    return work, Store(home).lock_path(stage, node.fingerprint)


def test_a_running_stage_tells_its_progress(flowctl, home, tiny):
    work, lock = _work(home, tiny, "teacher")
    write_json(
        work / "progress.json",
        {
            "stage": "teacher",
            "pid": 12,
            "began": 0.5,
            "time": 1.0,
            "done": 640,
            "total": 1280,
            "unit": "images",
            "rate": 64.0,
            "seconds_left": 10.0,
            "loss": 2.5,
            "memory_mib": 1234.5,
            "data_wait": 0.0123,
        },
    )
    write_json(work / "saved.json", {"done": 512, "total": 1280, "unit": "images"})
    lock.parent.mkdir(parents=True)
    with open(lock, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        found = json.loads(flowctl("status", "--json").stdout)
        text = flowctl("status").stdout
    (item,) = found
    assert item | {"saved": None} == {
        "stage": "teacher",
        "fingerprint": work.name,
        "state": "running",
        "recipe": None,
        "pid": 12,
        "done": 640,
        "total": 1280,
        "unit": "images",
        "rate": 64.0,
        "seconds_left": 10.0,
        "began": 0.5,
        "time": 1.0,
        "facts": {"loss": 2.5, "memory_mib": 1234.5, "data_wait": 0.0123},
        "saved": None,
        "waits_for": None,
        "run_seconds_left": None,
    }
    assert item["saved"]["done"] == 512
    assert "640 of 1,280 images, 64/s, loss 2.5, 10 s left" in text and "512 images" in text
    assert "1,234 MiB" in text and "1.2%" in text
    assert json.loads(flowctl("status", "--json").stdout)[0]["state"] == "stopped"


def test_a_stopped_stage_is_what_it_saved(flowctl, home, tiny):
    work, _ = _work(home, tiny, "student")
    assert json.loads(flowctl("status", "--json").stdout) == []  # nothing saved: nothing to tell
    write_json(work / "saved.json", {"done": 3, "total": 8, "unit": "images"})
    (work / "progress.json").write_text('{"torn": ')
    (item,) = json.loads(flowctl("status", "--json").stdout)
    assert (item["state"], item["done"], item["pid"], item["rate"]) == ("stopped", 3, None, None)


@pytest.mark.parametrize("running", [False, True])
def test_a_stage_that_ends_while_it_is_looked_at_is_no_error(flowctl, home, tiny, monkeypatch, running):
    work, lock = _work(home, tiny, "student")
    write_json(work / "saved.json", {"done": 3, "total": 8, "unit": "images"})

    def then_it_ends(work):
        saved = read_saved(work)
        shutil.rmtree(work)
        return saved

    monkeypatch.setattr(status, "read_saved", then_it_ends)
    lock.parent.mkdir(parents=True)
    with open(lock, "w") as stream:
        if running:
            fcntl.flock(stream, fcntl.LOCK_EX)
        result = flowctl("status", "--json")
    assert result.exit_code == 0 and [item["saved"] for item in json.loads(result.stdout)] == [None] * running


def test_whose_it_is_stands_in_the_records_and_equal_stages_are_told_apart(flowctl, home, tiny):
    teachers = {}
    for lr in ("0.1", "0.2"):
        session = Session.open(load(tiny, [f"teacher.training.lr={lr}"]))
        work = session.store.work("teacher", session.nodes["teacher"].fingerprint)
        write_json(work / "saved.json", {"done": 3, "total": 8, "unit": "images"})
        recipe = {**session.recipe.model_dump(mode="json"), "name": f"lr-{lr}"}
        RunRecord(home, recipe, outline(plan(session.nodes, session.store)), None).end("stopped")
        teachers[work.name] = f"lr-{lr}"
    write_json(
        home / "runs" / "run-0.json",
        {"id": "run-0", "name": "odd", "pid": 1, "host": "h", "server": None, "flow_run": None, "began": 0}
        | {"plan": [{"stage": 1}]},
    )
    found = json.loads(flowctl("status", "--json").stdout)
    assert {item["fingerprint"]: item["recipe"] for item in found} == teachers and len(teachers) == 2
    _, *lines = flowctl("status").stdout.splitlines()
    assert {line.split()[1]: line.split()[3] for line in lines} == {mark[:8]: name for mark, name in teachers.items()}


def test_a_running_stage_of_another_container_has_the_recipe_whose_run_holds_its_lock(flowctl, home, tiny):
    work, lock = _work(home, tiny, "teacher")
    write_json(work / "progress.json", {"stage": "teacher", "pid": 12})
    records = []
    for name, until in (("tiny", "teacher"), ("other", "data")):
        session = Session.open(load(tiny), until=until)
        facts = session.recipe.model_dump(mode="json") | {"name": name}
        records.append(RunRecord(home, facts, outline(plan(session.nodes, session.store)), None))
        records[-1].facts |= {"pid": 12}  # of either container, and here of another process, or none
        records[-1].joined("flow")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        (item,) = json.loads(flowctl("status", "--json").stdout)
    for record in records:
        record.release()
    assert (item["state"], item["pid"], item["recipe"]) == ("running", 12, "tiny")


@pytest.fixture
def taken(home, tiny):
    """A run on record that holds the lock of its teacher, and has not written anything yet: its record and pid."""
    session = Session.open(load(tiny), until="teacher")
    recipe = session.recipe.model_dump(mode="json")
    record = RunRecord(home, recipe, outline(plan(session.nodes, session.store)), None)
    lock = session.store.lock_path("teacher", session.nodes["teacher"].fingerprint)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.write(json.dumps({"pid": record.facts["pid"], "host": "h"}))
        stream.flush()
        yield record, record.facts["pid"]
    record.release()


def test_a_stage_runs_from_the_moment_that_it_has_its_lock(flowctl, taken):
    (item,) = json.loads(flowctl("status", "--json").stdout)
    assert (item["state"], item["stage"], item["pid"], item["done"]) == ("running", "teacher", taken[1], None)


def test_a_stage_is_that_of_the_process_that_holds_its_lock_whoever_reported_last(flowctl, home, tiny, taken):
    work, _ = _work(home, tiny, "teacher")
    write_json(work / "progress.json", {"stage": "teacher", "pid": 12, "done": 1, "total": 2, "unit": "images"})
    (item,) = json.loads(flowctl("status", "--json").stdout)
    assert (item["state"], item["pid"], item["recipe"]) == ("running", taken[1], "tiny")


def test_a_process_that_has_what_it_waited_for_no_longer_waits(flowctl, taken):
    record, pid = taken
    record.waits("teacher", "process 12 on h, which runs it")  # read before it took the lock
    (item,) = json.loads(flowctl("status", "--json").stdout)
    assert (item["state"], item["pid"]) == ("running", pid)


def test_a_run_ends_after_its_stage_and_the_planned_ones(flowctl, home, tiny):
    """10 s of the training by its rate, 4 s of its rest by the plan, and the later stages; reused ones take no time."""
    work, lock = _work(home, tiny, "teacher")
    facts = {"stage": "teacher", "pid": 12, "done": 640, "total": 1280, "unit": "images", "seconds_left": 10.0}
    write_json(work / "progress.json", facts)
    session = Session.open(load(tiny))
    entries = outline(plan(session.nodes, session.store))
    times = dict.fromkeys(session.nodes, 100.0) | {"teacher": 34.0, "data": 1e6}
    for entry in entries:
        training = 30.0 if entry["stage"] in ("teacher", "student") else 0.0
        entry |= {"seconds": times[entry["stage"]], "measured": 1.0, "training_seconds": training}
    entries[0]["action"] = "reuse"
    record = RunRecord(home, load(tiny).model_dump(mode="json"), entries, None)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        (item,) = json.loads(flowctl("status", "--json").stdout)
        text = flowctl("status").stdout
    record.release()
    assert item["run_seconds_left"] == 10 + 4 + 100 * (len(entries) - 2) and "(in 8 min 34 s)" in text


def test_nothing_to_tell(flowctl, home):
    assert "Nothing is running" in flowctl("status").stdout
