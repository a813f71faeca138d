"""A run that begins while `gc` or `rm` looks through the store: what it needs stays, or it makes it anew."""

import json
import threading
from pathlib import Path

import pytest

import storage.garbage
from flows.upkeep.references import NewRuns, recipes, runs
from pipeline.recipe.load import load
from storage.errors import BusyError
from storage.store import Store
from tests.flows.cli.test_gc import STAGES, record, stages, store  # noqa: F401 - a fixture
from tests.flows.conftest import make_all


def forget(store: Store) -> None:  # noqa: F811
    for path in (store.home / "runs").iterdir():
        path.unlink()


def test_a_record_that_is_removed_meanwhile_is_passed_over(store, tiny, monkeypatch):  # noqa: F811
    record(load(tiny), "7 reused")
    before, working = len(runs(store)[0]), Path.read_bytes
    gone = next((store.home / "runs").glob("run-*.json"))

    def read(path):
        gone.unlink(missing_ok=True)
        return working(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    left, torn = runs(store)
    assert (len(left), torn) == (before - 1, [])


@pytest.mark.parametrize("ended", [None, "7 reused"])
def test_gc_leaves_what_a_run_needs_that_began_during_the_walk(flowctl, store, tiny, monkeypatch, ended):  # noqa: F811
    forget(store)
    garbage, began = storage.garbage.garbage, []

    def walk(*words):
        yield from garbage(*words)
        began.append(record(load(tiny), ended))

    monkeypatch.setattr(storage.garbage, "garbage", walk)
    result = flowctl("gc", "--older-than", "0", "--yes")
    assert result.exit_code == 0 and began and set(stages(store)) == STAGES and len(stages(store)) == 7
    assert result.stdout.count("in use: artifacts/") == 7 and "which runs tiny" in result.stdout
    assert "artifacts/student/other-" in result.stdout  # which nobody needs
    assert flowctl("verify").exit_code == 0


def test_gc_and_rm_look_again_before_each_removal(flowctl, store, tiny, monkeypatch):  # noqa: F811
    forget(store)
    discard, gone = Store.discard, []

    def once(self, path):
        if not gone:
            record(load(tiny))
        gone.append(path.parent.name)
        discard(self, path)

    monkeypatch.setattr(Store, "discard", once)
    flowctl("gc", "--older-than", "0", "--yes")
    assert gone[0] == "bank" and sorted(gone) == ["bank", "evaluation", "report", "student"]
    make_all(load(tiny))
    del gone[:]
    result = flowctl("rm", "tiny", "--yes")
    assert result.exit_code == 1 and gone == ["bank"] and len(stages(store)) == 6
    assert "1 run record of tiny not deleted" in result.stdout and result.stdout.count("in use: artifacts/") == 6


def test_a_run_that_is_not_on_record_yet_waits_for_the_removal_and_makes_it_anew(flowctl, store, tiny, monkeypatch):  # noqa: F811
    """Between the last look and the removal there is only the lock, which the run asks for too."""
    forget(store)
    refuse, runs, store_lock, waited = NewRuns.check_unused, [], Store.lock, threading.Event()

    def lock(self, stage, fingerprint, waiting):
        return store_lock(self, stage, fingerprint, lambda holder: (waited.set(), waiting(holder)))

    def then_a_run_begins(self, key):
        refuse(self, key)
        if key[0] == "data" and not runs:
            record(load(tiny), ended=None)
            runs.append(threading.Thread(target=make_all, args=(load(tiny),)))
            runs[0].start()
            assert waited.wait(30)

    monkeypatch.setattr(Store, "lock", lock)
    monkeypatch.setattr(NewRuns, "check_unused", then_a_run_begins)
    result = flowctl("gc", "--older-than", "0", "--yes")
    assert result.exit_code == 0 and "artifacts/data/" in result.stdout.partition("freed")[0]
    runs[0].join(60)
    assert set(stages(store)) == STAGES and flowctl("verify").exit_code == 0


def test_a_newcomer_whose_record_cannot_be_read_may_need_anything(store, tiny):  # noqa: F811
    newcomers = NewRuns(store)
    newcomers.check_unused(("data", "ab" * 6))  # the runs of before are for others to judge
    path = store.home / "runs" / "run-99990101T000000-abcdef.json"
    path.write_text('{"torn')
    for _ in range(2):
        with pytest.raises(BusyError, match=str(path)):
            newcomers.check_unused(("data", "ab" * 6))


def test_what_a_newcomers_artifacts_were_made_from_stays_too(store, tiny):  # noqa: F811
    newcomers = NewRuns(store)
    came = record(load(tiny))
    came.facts["plan"] = [step for step in came.facts["plan"] if step["stage"] == "student"]
    came.end("1 run")
    keys = {root.parent.name: (root.parent.name, root.name[-12:]) for root in store.roots()}
    for stage in ("data", "teacher", "bank"):
        with pytest.raises(BusyError, match="which runs tiny"):
            newcomers.check_unused(keys[stage])
    newcomers.check_unused(keys["reference"])


@pytest.mark.parametrize("field", ["number", "began"])
def test_recipes_come_by_the_order_of_their_runs_and_not_by_their_names(store, field):  # noqa: F811
    assert [recipe.name for recipe in recipes(store)][:2] == ["other", "tiny"]
    for path in (store.home / "runs").glob("run-*.json"):
        facts = json.loads(path.read_text())
        if field == "began":
            del facts["number"]  # as before there were numbers
        facts[field] += 3600 * (facts["name"] == "tiny")
        path.write_text(json.dumps(facts))
    assert [recipe.name for recipe in recipes(store)][:2] == ["tiny", "other"]
