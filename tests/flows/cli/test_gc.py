"""`gc`, `rm` and the room that `list` tells of: what goes, what stays and why, and who must not be disturbed."""

import json
import os
import time
from pathlib import Path

import pytest

from flows.session.runs import RunRecord
from flows.session.session import Session
from pipeline.engine.plan import outline, plan
from pipeline.recipe.load import load
from pipeline.runtime.job import SAVED
from storage.artifact import Artifact
from storage.atomic import write_json
from storage.garbage import DAY
from storage.store import Store
from tests.flows.conftest import make_all

STAGES = {"data", "reference", "teacher", "bank", "student", "evaluation", "report"}


def record(recipe, ended: str | None = "7 run") -> RunRecord:
    """A run of `recipe` as `flowctl run` records it."""
    session = Session.open(recipe)
    steps = outline(plan(session.nodes, session.store))
    made = RunRecord(session.store.home, recipe.model_dump(mode="json"), steps, None)
    if ended:
        made.end(ended)
    return made


@pytest.fixture
def store(tiny, home) -> Store:
    """Two recipes that share all but the student and what follows: both made, both on record."""
    other = Path(tiny).with_name("other.yaml")
    text = Path(tiny).read_text().replace("name: tiny", "name: other")
    other.write_text(text.replace("coupling: nfm", "coupling: nfm\n  label_drop: 0.3"))
    for path in (tiny, other):
        make_all(load(str(path)))
        record(load(str(path)))
    return Store(home)


def stages(store: Store) -> list[str]:
    return [root.parent.name for root in store.roots()]


def test_both_recipes_share_a_teacher(store):
    assert sorted(stages(store)) == sorted([*STAGES, "student", "evaluation", "report"])


def test_gc_keeps_what_any_run_on_record_refers_to(flowctl, store):
    result = flowctl("gc", "--yes", "--older-than", "0")
    assert result.exit_code == 0 and f"Nothing to delete in {store.home}" in result.stdout
    assert len(stages(store)) == 10


def test_gc_says_what_would_go_and_removes_it_only_then(flowctl, store):
    for path in (store.home / "runs").iterdir():
        if json.loads(path.read_text())["name"] == "other":
            path.unlink()
    result = flowctl("gc", "--older-than", "0")
    assert result.exit_code == 0 and len(stages(store)) == 10
    assert "student/other-" in result.stdout and "no run refers to it" in result.stdout
    assert "Nothing was deleted: add --yes" in result.stdout and "teacher/" not in result.stdout
    assert "Nothing to delete" in flowctl("gc").stdout  # not touched for a month, unless said otherwise
    result = flowctl("gc", "--older-than", "0", "--yes")
    assert result.exit_code == 0 and "freed" in result.stdout and set(stages(store)) == STAGES
    assert len(stages(store)) == 7 and flowctl("verify").exit_code == 0


def test_gc_says_what_it_cannot_delete(flowctl, store, monkeypatch):
    for name in ("a", "b"):
        (store.home / "cache" / f"{name}.json").write_text("{}")
        os.utime(store.home / "cache" / f"{name}.json", (time.time() - 2 * DAY,) * 2)
    unlink = Path.unlink

    def refused(path, **words):
        if path.name == "a.json":
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path, **words)

    monkeypatch.setattr(Path, "unlink", refused)
    result = flowctl("gc", "--older-than", "0", "--yes")
    assert result.exit_code == 1 and "not deleted: cache/a.json" in result.stdout
    assert [path.name for path in (store.home / "cache").glob("?.json")] == ["a.json"]


def test_gc_leaves_alone_what_is_in_use(flowctl, store, tiny):
    work = store.work("pairs", "ab" * 6)
    write_json(work / SAVED, {"done": 1, "total": 2, "unit": "shards"})
    with store.lock("pairs", "ab" * 6, pytest.fail):
        for words in ((), ("--yes",)):
            result = flowctl("gc", "--older-than", "0", *words)
            assert result.exit_code == 0 and work.exists()
            assert f"in use: work/pairs/{'ab' * 6}: by process {os.getpid()} on" in result.stdout
    # Between two of its stages a run holds no lock, and is alive all the same.
    waiting = store.work("teacher", next(root.name[-12:] for root in store.roots() if root.parent.name == "teacher"))
    write_json(waiting / SAVED, {"done": 1, "total": 2, "unit": "images"})
    going_on = record(load(tiny), ended=None)
    result = flowctl("gc", "--older-than", "0", "--yes")
    assert not work.exists() and waiting.exists() and f"process {os.getpid()}" in result.stdout
    going_on.end("1 run")
    flowctl("gc", "--older-than", "0", "--yes")
    assert not waiting.exists() and len(stages(store)) == 10


def test_gc_removes_stopped_work_in_time(flowctl, store):
    work = store.work("student", "ab" * 6)
    write_json(work / SAVED, {"done": 1, "total": 2, "unit": "images"})
    then = time.time() - 31 * 86400
    os.utime(work / SAVED, (then, then))
    assert "not touched for 31 days" in flowctl("gc").stdout and work.exists()
    flowctl("gc", "--older-than", "32", "--yes")
    assert work.exists()
    flowctl("gc", "--yes")
    assert not work.exists()


def test_gc_keeps_every_artifact_where_a_record_cannot_be_read(flowctl, store):
    first, *_ = sorted((store.home / "runs").iterdir())
    first.write_text('{"torn')
    store.set_aside(_file(store.home / "x"))
    result = flowctl("gc", "--older-than", "0", "--yes")
    assert result.exit_code == 0 and len(stages(store)) == 10
    assert f"note: The record {first} cannot be read" in result.stdout
    assert not list((store.home / "work").glob(".discarded*"))  # what is no artifact goes
    assert flowctl("rm", "tiny", "--yes").exit_code == 1 and len(stages(store)) == 10


def _file(path: Path) -> Path:
    path.write_text("x")
    return path


def test_rm_takes_what_no_other_recipe_shares(flowctl, store):
    result = flowctl("rm", "other")
    assert result.exit_code == 0 and len(stages(store)) == 10 and "Nothing was deleted: add --yes" in result.stdout
    assert result.stdout.count("not deleted: artifacts/") == 4 and "needed by tiny" in result.stdout
    assert "1 run record of other would be deleted" in result.stdout
    result = flowctl("rm", "other", "--yes")
    assert result.exit_code == 0 and len(stages(store)) == 7 and "1 run record of other deleted" in result.stdout
    assert {json.loads(run.read_text())["name"] for run in (store.home / "runs").iterdir()} == {"tiny"}
    assert flowctl("rm", "tiny", "--yes").exit_code == 0 and stages(store) == []
    result = flowctl("rm", "tiny", "--yes")
    assert result.exit_code == 2 and "rm needs a recipe that has runs" in result.stderr


def test_rm_takes_a_run_by_its_own_seed_too(flowctl, store, tiny):
    seed = load(tiny).seed
    assert flowctl("rm", f"other@{seed + 1}").exit_code == 2
    assert flowctl("rm", f"other@{seed}", "--yes").exit_code == 0 and set(stages(store)) == STAGES
    assert len(stages(store)) == 7


def test_rm_reads_a_record_without_its_recipe(flowctl, store):
    for path in (store.home / "runs").glob("run-*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"recipe": None}))
    assert flowctl("rm", "other").exit_code == 0


def test_rm_takes_a_recipes_file_and_its_work_and_monitor(flowctl, store, tiny):
    student = Session.open(load(tiny)).nodes["student"].fingerprint
    write_json(store.work("student", student) / SAVED, {"done": 1, "total": 2, "unit": "images"})
    _file_in(store.monitor("student", student))
    result = flowctl("rm", tiny, "--yes")
    assert result.exit_code == 0, result.output
    assert not store.work("student", student).exists() and not store.monitor("student", student).exists()
    assert len(stages(store)) == 7


def _file_in(folder: Path) -> None:
    folder.mkdir(parents=True)
    _file(folder / "metrics.jsonl")


def test_rm_takes_one_artifact_by_name_damaged_or_not(flowctl, store):
    teacher = next(root for root in store.roots() if root.parent.name == "teacher")
    (teacher / "artifact.json").write_text("{")
    result = flowctl("rm", f"teacher/{teacher.name}")
    assert result.exit_code == 0 and teacher.exists()
    assert "note: runs of other refer to it" in result.stdout and "note: runs of tiny refer to it" in result.stdout
    assert flowctl("rm", teacher.name[-12:-4], "--yes").exit_code == 0 and not teacher.exists()
    assert len(stages(store)) == 9 and len(list((store.home / "runs").iterdir())) == 2
    student = next(root for root in store.roots() if root.parent.name == "student")
    fingerprint = Artifact.read(student).fingerprint
    assert flowctl("rm", fingerprint[:20]).exit_code == 0 and flowctl("rm", fingerprint[:12] + "0" * 52).exit_code == 2
    result = flowctl("rm", f"student/{student.name}"[:-1])
    assert result.exit_code == 2 and "Did you mean 'student/" in result.stderr


def test_rm_refuses_what_is_in_use(flowctl, store, tiny):
    going_on = record(load(tiny), ended=None)
    result = flowctl("rm", "tiny", "--yes")
    assert result.exit_code == 1 and f"in use by process {os.getpid()}" in result.stderr and len(stages(store)) == 10
    assert flowctl("rm", "other", "--yes").exit_code == 0  # what it shares with tiny is not touched
    assert len(stages(store)) == 7
    going_on.end("stopped")
    student = next(root for root in store.roots() if root.parent.name == "student")
    fingerprint = Artifact.read(student).fingerprint
    assert flowctl("rm", fingerprint[:20]).exit_code == 0 and flowctl("rm", fingerprint[:12] + "0" * 52).exit_code == 2
    with store.lock("student", student.name[-12:], pytest.fail):
        result = flowctl("rm", "tiny", "--yes")
        assert result.exit_code == 1 and "Stop that process first" in result.stderr and len(stages(store)) == 7
        assert flowctl("rm", f"student/{student.name}", "--yes").exit_code == 1 and student.exists()
    assert flowctl("rm", "tiny", "--yes").exit_code == 0 and stages(store) == []


def test_a_run_of_another_host_between_its_stages_is_in_use(flowctl, store, tiny):
    """While it waits for a GPU, or uploads, it holds no stage's lock, and its process is not seen here."""
    living = record(load(tiny), ended=None)
    living.facts |= {"host": "elsewhere", "pid": 5}
    living._write()
    result = flowctl("rm", "tiny", "--yes")
    assert result.exit_code == 1 and "in use by process 5 on elsewhere" in result.stderr and len(stages(store)) == 10
    living.release()
    living.journal.path.write_text("{}")
    assert flowctl("rm", "tiny", "--yes").exit_code == 0 and len(stages(store)) == 7
    assert not list((store.home / "runs").glob(f"{living.id}*"))  # neither its record nor its lock nor its journal


def test_list_tells_the_room_of_artifacts_and_of_work(flowctl, store):
    work = store.work("student", "ab" * 6)
    write_json(work / SAVED, {"done": 1, "total": 2, "unit": "images"})
    (work / "checkpoint").write_bytes(bytes(5_000_000))
    (store.home / "cache" / "x").write_bytes(bytes(7_000_000))
    (next(root for root in store.roots() if root.parent.name == "data") / "payload.txt").unlink()
    text = flowctl("list").stdout
    assert f"student/{'ab' * 6}  5 MB  stopped, 1 of 2 images saved" in text
    assert "damaged: " in text and "payload.txt: missing" in text
    last = text.splitlines()[-1]
    assert "in 10 artifacts, 5 MB in unfinished work, 7." in last and f": 12 MB in {store.home}" in last
    with store.lock("student", "ab" * 6, pytest.fail):
        assert "running, 1 of 2 images saved" in flowctl("list").stdout
