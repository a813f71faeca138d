"""What may go and what stays; a removal that is cut short leaves nothing half there."""

import os
import time
from pathlib import Path

import pytest

from storage.artifact import Artifact, record_files
from storage.garbage import DAY, belongings, garbage, reachable, remove, room
from storage.store import Store
from tests.storage.test_store import PROVENANCE

DATA, TEACHER, OTHER = ("data", "da" * 6), ("teacher", "ea" * 6), ("teacher", "fa" * 6)


@pytest.fixture
def store(tmp_path) -> Store:
    """Data, and two teachers made from it."""
    store = Store(tmp_path)
    store.prepare()
    for key, inputs in ((DATA, {}), (TEACHER, {"data": DATA[1]}), (OTHER, {"data": DATA[1]})):
        make(store, key, inputs)
    return store


def make(store: Store, key: tuple[str, str], inputs: dict[str, str], content: bytes = b"weights") -> Artifact:
    stage, prefix = key
    out = store.work(*key) / "out"
    out.mkdir(parents=True)
    (out / "w.bin").write_bytes(content)
    whole = {role: fingerprint + "0" * 52 for role, fingerprint in inputs.items()}
    return store.publish(
        Artifact(
            stage=stage,
            stage_version=1,
            name="mine",
            fingerprint=prefix + "0" * 52,
            config={},
            inputs=whole,
            metrics={},
            files=record_files(out),
            provenance=PROVENANCE,
        ),
        out,
    )


def write(path: Path, days: float = 0.0) -> Path:
    """A file, and how long ago it was touched."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("content")
    then = time.time() - days * DAY
    os.utime(path, (then, then))
    return path


def old(store: Store) -> Store:
    """Nothing in it was touched for 40 days."""
    for file in store.home.rglob("*"):
        if file.is_file():
            write_time = time.time() - 40 * DAY
            os.utime(file, (write_time, write_time))
    return store


def places(store: Store, kept, days: float = 30) -> list[str]:
    return [item.path.relative_to(store.home).as_posix() for item in garbage(store, kept, days)]


def test_room_is_that_of_all_files_below(tmp_path):
    write(tmp_path / "a" / "b", days=3)
    write(tmp_path / "a" / "c" / "d", days=1)
    found = room(tmp_path / "a")
    assert found.size == 14 and abs(found.touched - (time.time() - DAY)) < 60
    assert room(tmp_path / "a" / "b").size == 7 and room(tmp_path / "missing") == room(tmp_path / "nowhere")


def test_what_a_kept_run_needs_stays_with_all_it_was_made_from(store):
    assert reachable(store, {TEACHER}) == {DATA, TEACHER}
    assert places(old(store), {TEACHER}) == ["artifacts/teacher/mine-" + "fa" * 6]
    assert places(store, {TEACHER, OTHER}) == []
    assert len(places(store, set())) == 3
    assert places(store, None) == []  # what is kept is not known


def test_what_was_touched_lately_stays(store):
    assert places(store, set()) == []
    assert len(places(store, set(), days=0)) == 3


def test_a_damaged_manifest_keeps_its_own_artifact_at_least(store):
    (store.directories(*TEACHER)[0] / "artifact.json").write_text("{")
    assert reachable(store, {TEACHER}) == {TEACHER}


def test_work_that_nobody_goes_on_with(store):
    write(store.work("student", "ab" * 6) / "checkpoints" / "step.json", days=31)
    write(store.work("student", "cd" * 6) / "checkpoints" / "step.json", days=29)
    write(store.work(*TEACHER) / "saved.json", days=31)
    found = {item.key: item.why for item in garbage(store, {TEACHER, OTHER}, 30)}
    assert found == {
        ("student", "ab" * 6): "not touched for 31 days",
        TEACHER: "its artifact is there, and it was not touched for 31 days",
    }


def test_a_monitor_goes_with_its_training(store):
    write(store.monitor(*TEACHER) / "metrics.jsonl", days=40)
    write(store.monitor("student", "ab" * 6) / "metrics.jsonl", days=40)
    write(store.work("onestep", "cd" * 6) / "saved.json")
    write(store.monitor("onestep", "cd" * 6) / "metrics.jsonl", days=40)
    assert places(store, {TEACHER, OTHER}) == ["monitor/student/student-" + "ab" * 6]
    write(store.work(*TEACHER) / "saved.json", days=40)  # work that goes does not take the monitor of what stays along
    assert places(store, {TEACHER, OTHER}) == ["work/teacher/" + "ea" * 6, "monitor/student/student-" + "ab" * 6]
    assert "monitor/teacher/teacher-" + "ea" * 6 in places(old(store), {OTHER})


def test_leftovers_and_caches(store):
    aside = store.set_aside(write(store.home / "x"))
    write(store.home / "runs" / ".run-1.json.0123abcd.partial", days=31)
    write(store.home / "runs" / ".run-2.json.0123abcd.partial")  # someone may be writing it
    write(store.home / "runs" / "run-1.json", days=99)
    write(store.home / "cache" / "source-1.json", days=31)
    write(store.home / "cache" / "source-2.json")
    found = places(store, {TEACHER, OTHER})
    assert found == ["runs/.run-1.json.0123abcd.partial", f"work/{aside.name}", "cache/source-1.json"]


def test_removing_takes_the_lock(store):
    def busy(holder):
        raise RuntimeError(holder)

    item = next(garbage(store, {OTHER}, 0))
    with store.lock(*TEACHER, busy), pytest.raises(RuntimeError, match="process"):
        remove(store, item, busy)
    assert item.path.exists()
    remove(store, item, busy)
    assert not item.path.exists() and not list((store.home / "work").glob(".discarded*"))
    remove(store, item, busy)  # gone already: another gc was faster


def test_the_last_look_is_under_the_lock_and_may_keep_it(store):
    item = next(garbage(store, {OTHER}, 0))

    def needed(key):
        assert key == TEACHER
        with pytest.raises(RuntimeError, match="held"), store.lock(*key, held):
            pass
        raise LookupError("by a run that has just begun")

    def held(holder):
        raise RuntimeError("held")

    with pytest.raises(LookupError):
        remove(store, item, pytest.fail, needed)
    assert item.path.exists()


def test_a_removal_that_is_killed_leaves_nothing_half_believed(store, monkeypatch):
    """The rename comes first: killed before any file is gone, or with half of them gone, there is no artifact."""
    (item,) = (item for item in garbage(store, {OTHER}, 0))

    def killed(path, **_):
        (path / "w.bin").unlink()
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(OSError, match="killed"):
            remove(store, item, pytest.fail)
    assert store.find(*TEACHER) is None and not store.directories(*TEACHER)
    (left,) = garbage(store, {OTHER}, 30)
    remove(store, left, pytest.fail)
    assert places(store, {OTHER}, 0) == [] and {p.name for p in (store.home / "work").iterdir()} <= {"data", "teacher"}


def test_belongings_are_artifact_work_and_monitor(store):
    write(store.work(*TEACHER) / "saved.json")
    write(store.monitor(*TEACHER) / "metrics.jsonl")
    found = [item.path.relative_to(store.home).parts[0] for item in belongings(store, {TEACHER}, "because")]
    assert found == ["artifacts", "work", "monitor"]


def test_a_folder_that_is_no_store_is_left_alone(tmp_path):
    """FLOWCTL_HOME may name a folder of a user, who has a `work` of their own."""
    for place in ("work/.git/config", "cache/mydata/results.csv", "monitor/logs/experiment1/x", "runs/.a.partial"):
        write(tmp_path / place, days=60)
    assert list(garbage(Store(tmp_path), set(), 0)) == []


def test_in_a_store_only_names_that_we_give_are_taken(store):
    for place in ("work/.git/config", "work/.venv/x", "monitor/logs/experiment1/x", "artifacts/teacher/theirs/x"):
        write(store.home / place, days=60)
    ours = write(store.home / "work" / ".recipes-0abc" / "x.yaml", days=60).parent
    assert places(store, {TEACHER, OTHER}) == [ours.relative_to(store.home).as_posix()]


def test_what_no_lock_guards_is_left_alone_for_a_day_and_an_empty_folder_is_no_older_than_itself(store):
    """A download, a copy from another disk, or a sweep may have just begun."""
    fresh = [
        store.home / place for place in ("cache/mnist", "work/.recipes-0abc", "artifacts/data/.x.01234567.partial")
    ]
    for folder in fresh:
        folder.mkdir(parents=True)
    assert places(store, {TEACHER, OTHER}) == places(store, {TEACHER, OTHER}, days=0) == []
    assert abs(room(fresh[0]).touched - time.time()) < 60
    for folder in fresh:
        os.utime(folder, (time.time() - 2 * DAY,) * 2)
    assert len(places(store, {TEACHER, OTHER}, days=0)) == 3
