"""Run records: who is alive, who was killed, and process ids that were given anew."""

import os
import subprocess
import sys

import pytest

from flows.runs import RunRecord, alive, bury, killed, records

PLAN = [{"stage": "data", "action": "run", "reason": "not made yet", "fingerprint": "f"}]


@pytest.fixture
def record(tmp_path):
    return RunRecord(tmp_path, {"name": "tiny", "seed": 0}, PLAN, None)


def test_a_record_tells_who_runs_what(record, tmp_path):
    record.joined("flow-run-id")
    (facts,) = records(tmp_path)
    assert (facts["pid"], facts["name"], facts["flow_run"], facts["plan"]) == (os.getpid(), "tiny", "flow-run-id", PLAN)
    assert alive(facts) and facts["ended"] is None and not killed(tmp_path)
    record.end("3 run")
    (facts,) = records(tmp_path)
    assert facts["outcome"] == "3 run" and facts["ended"] >= facts["began"]


def test_the_dead_are_found_and_buried(record, tmp_path):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    record.facts["pid"] = child.pid
    record.end("x")
    record.facts["ended"] = None
    record._write()
    (dead,) = killed(tmp_path)
    bury(tmp_path, dead)
    assert not killed(tmp_path) and next(records(tmp_path))["outcome"] == "killed"


@pytest.mark.parametrize(("change", "lives"), [({"process_start": 1}, False), ({"boot": "another"}, False),
                                               ({"host": "elsewhere", "pid": 1, "boot": "b"}, True)])
def test_the_same_id_may_be_another_process(record, change, lives):
    assert alive(record.facts | change) is lives


def test_an_unreadable_record_is_passed_over(record, tmp_path):
    (tmp_path / "runs" / "run-0.json").write_text("{torn")
    assert len(list(records(tmp_path))) == 1


def test_the_end_of_a_run_is_told_even_if_the_disk_is_full(record, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("flows.runs.write_json", full)
    record.end("failed")
