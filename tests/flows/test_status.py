"""`status`: what runs in other processes, and what was stopped."""

import fcntl
import json

from pipeline.load import load
from storage.atomic import write_json


def _work(home, tiny, stage):
    from flows.session import Session
    node = Session.open(load(tiny)).nodes[stage]
    from storage.store import Store
    work = Store(home).work(stage, node.fingerprint)
    work.mkdir(parents=True)
    return work, Store(home).lock_path(stage, node.fingerprint)


def test_a_running_stage_tells_its_progress(flowctl, home, tiny):
    work, lock = _work(home, tiny, "teacher")
    write_json(work / "progress.json", {"stage": "teacher", "pid": 12, "time": 1.0, "done": 640, "total": 1280,
                                        "unit": "images", "rate": 64.0, "seconds_left": 10.0, "loss": 2.5,
                                        "memory_mib": 1234.5, "data_wait": 0.0123})
    write_json(work / "saved.json", {"done": 512, "total": 1280, "unit": "images"})
    lock.parent.mkdir(parents=True)
    with open(lock, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        found = json.loads(flowctl("status", "--json").stdout)
        text = flowctl("status").stdout
    (item,) = found
    assert item | {"saved": None} == {
        "stage": "teacher", "fingerprint": work.name, "state": "running", "recipe": None, "pid": 12, "done": 640,
        "total": 1280, "unit": "images", "rate": 64.0, "seconds_left": 10.0, "time": 1.0,
        "facts": {"loss": 2.5, "memory_mib": 1234.5, "data_wait": 0.0123},
        "saved": None}
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


def test_nothing_to_tell(flowctl, home):
    assert "Nothing is running" in flowctl("status").stdout
