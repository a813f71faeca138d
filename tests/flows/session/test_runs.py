"""Run records: who is alive, and who was killed."""

import errno
import json
import os
import subprocess
import sys
import time
from datetime import datetime

import pytest

from flows.session import runs
from flows.session.runs import RunRecord, alive, killed, latest, mark_ended, records
from tests.flows.conftest import ROOT

# A run in another container, whose processes are not seen here: one in truth, one that says so.
CONTAINER = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
ELSEWHERE = """
import json, sys
from pathlib import Path
from flows.session.runs import RunRecord
record = RunRecord(Path(sys.argv[1]), {"name": "tiny"}, [], None)
record.facts |= json.loads(sys.argv[2])
record.joined("flow-run-id")
print("ready", flush=True)
sys.stdin.read()
"""
PLAN = [{"stage": "data", "action": "run", "reason": "no artifact yet", "fingerprint": "f"}]


@pytest.fixture
def record(tmp_path):
    return RunRecord(tmp_path, {"name": "tiny", "seed": 0}, PLAN, None)


def test_a_record_tells_who_runs_what(record, tmp_path):
    record.joined("flow-run-id")
    (facts,) = records(tmp_path)
    assert (facts["pid"], facts["name"], facts["flow_run"], facts["plan"]) == (os.getpid(), "tiny", "flow-run-id", PLAN)
    assert alive(facts, tmp_path) and facts["ended"] is None and not killed(tmp_path)
    record.end("3 run")
    (facts,) = records(tmp_path)
    assert facts["outcome"] == "3 run" and facts["ended"] >= facts["began"]


def test_the_latest_run_is_that_which_began_last_though_the_clock_was_set_back(record, tmp_path, monkeypatch):
    record.end("3 run")
    now = time.time
    for seed, hours in ((1, 1), (2, 40)):
        monkeypatch.setattr(time, "time", lambda hours=hours: now() - 3600 * hours)
        RunRecord(tmp_path, {"name": "tiny", "seed": seed}, PLAN, None).end("3 run")
        assert latest(tmp_path)["tiny"]["recipe"]["seed"] == seed
    assert [facts["recipe"]["seed"] for facts in records(tmp_path)] == [0, 1, 2]


def test_the_dead_are_found_and_marked(record, tmp_path):
    record.release()  # as the kernel does
    (dead,) = killed(tmp_path)
    mark_ended(tmp_path, dead)
    assert not killed(tmp_path) and next(records(tmp_path))["outcome"] == "killed"


@pytest.mark.parametrize(
    ("prefix", "facts"), [([], '{"host": "elsewhere"}'), (CONTAINER, "{}")], ids=["host", "unshared"]
)
def test_a_run_whose_process_is_not_seen_here_lives_while_it_holds_its_lock(tmp_path, prefix, facts):
    if prefix and (sys.platform != "linux" or subprocess.run([*prefix, "true"], capture_output=True).returncode):
        pytest.skip("process namespaces cannot be made here")
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", ELSEWHERE, str(tmp_path), facts],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "ready\n"
        (found,) = records(tmp_path)
        assert alive(found, tmp_path) and not killed(tmp_path)
        process.kill()
        process.stdout.read()  # until it is gone, with all that it started
    (dead,) = killed(tmp_path)
    mark_ended(tmp_path, dead)
    assert not killed(tmp_path) and not list((tmp_path / "runs").glob("*.lock"))


def test_a_run_that_has_just_ended_was_not_killed(record, tmp_path, monkeypatch):
    def looked(facts, home):
        record.end("7 run")
        return False

    monkeypatch.setattr(runs, "alive", looked)
    assert killed(tmp_path) == []
    assert not list((tmp_path / "runs").glob("*.lock"))


def test_an_unreadable_record_is_passed_over(record, tmp_path):
    (tmp_path / "runs" / "run-0.json").write_text("{torn")
    (tmp_path / "runs" / "run-1.json").write_text(json.dumps(record.facts | {"id": "x" * 300}))
    (tmp_path / "runs" / "run-2.json").write_text("[" * 100_000)
    assert len(list(records(tmp_path))) == 1


@pytest.mark.parametrize(
    "wrong", [{"name": 5}, {"reruns": None}, {"reruns": [1]}, {"plan": "all"}, {"host": []}, {"began": "now"}]
)
def test_a_record_of_other_types_is_unreadable(record, tmp_path, wrong):
    (path,) = (tmp_path / "runs").glob("run-*.json")
    path.write_text(json.dumps(record.facts | wrong))
    assert list(records(tmp_path)) == []


def test_a_run_of_a_clock_that_ran_ahead_is_not_the_latest(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("time.time", lambda: datetime(2100, 1, 1).timestamp())
        RunRecord(tmp_path, {"name": "tiny", "seed": 1}, [], None).end("7 run")
    RunRecord(tmp_path, {"name": "tiny", "seed": 2}, [], None).end("7 run")
    assert latest(tmp_path)["tiny"]["recipe"]["seed"] == 2


def test_a_record_that_cannot_be_written_leaves_no_lock_and_names_its_place(tmp_path, monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("storage.atomic.fsync_path", full)
    with pytest.raises(OSError) as error:
        RunRecord(tmp_path, {"name": "tiny"}, [], None)
    assert str(tmp_path) in error.value.filename and not list((tmp_path / "runs").iterdir())


def test_the_end_of_a_run_is_told_even_if_the_disk_is_full(record, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("flows.session.runs.write_json", full)
    record.end("failed")
    assert not alive(record.facts, tmp_path)  # though its record cannot say so
