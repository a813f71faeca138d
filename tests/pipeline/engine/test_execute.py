"""Plan and execution over stages that need no network: what is reused, resumed and run, and why."""

import errno
import gc
import json
import os
import types
import weakref
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from pipeline.engine import dag, rerun
from pipeline.engine import execute as execution
from pipeline.engine.execute import InputsChanged, execute
from pipeline.engine.plan import plan
from pipeline.engine.saved_work import read_by
from pipeline.outputs.results import DataResult
from pipeline.recipe.load import load
from storage.artifact import MANIFEST, NewerFormat
from storage.atomic import write_json
from storage.errors import DiskError, Interrupted, StageFailed, UsageError
from storage.inspection import inspect_artifact
from storage.remote import RemoteError
from storage.store import Store
from tests.pipeline.data.sources.formats import make_folder

RESULT = DataResult(name="fake", train=2, test=1, channels=1, size=8, levels=2, classes=None)


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "home")
    store.prepare()
    return store


@pytest.fixture
def ran(monkeypatch):
    """Stages write one file and report; the list says which of them ran."""
    ran = []

    def run(job):
        ran.append(job.stage)
        (job.out / "payload.bin").write_bytes(b"payload of " + job.stage.encode())
        return RESULT

    monkeypatch.setattr(dag.Stage, "module", lambda self: types.SimpleNamespace(run=run))
    monkeypatch.setitem(dag.STAGES, "reference", dag.Stage("reference", 1, ("data",), DataResult))
    return ran


def run_all(nodes, store, **options):
    made = {}
    for name, node in nodes.items():
        made[name] = execute(
            node, {role: made[role].artifact for role in node.inputs}, store, load("nfm-digits").compute, **options
        )
    return {name: outcome.action for name, outcome in made.items()}


def nodes(*overrides):
    built = dag.build(load("nfm-digits", overrides))
    return {name: built[name] for name in ("data", "reference")}


def made(store):
    return {name: store.find(name, node.fingerprint) for name, node in nodes().items()}


def actions(nodes, store):
    return {step.node.name: (step.action, step.reason) for step in plan(nodes, store)}


def test_the_second_run_reuses_everything(store, ran):
    assert run_all(nodes(), store) == {"data": "run", "reference": "run"}
    assert run_all(nodes(), store) == {"data": "reused", "reference": "reused"}
    assert ran == ["data", "reference"]
    assert {action for action, _ in actions(nodes(), store).values()} == {"reuse"}
    assert not store.work("data", nodes()["data"].fingerprint).exists()


def test_the_plan_says_which_field_changed_and_which_input_moved(store, ran):
    assert actions(nodes(), store)["data"] == ("run", "no artifact yet")
    run_all(nodes(), store)
    changed = actions(nodes("data.seed=7"), store)
    assert changed["data"] == ("run", "seed: 0 -> 7")
    assert changed["reference"][1].startswith("input data: ")
    assert actions(nodes("compute.threads=7", "seed=3"), store)["data"][0] == "reuse"


@pytest.mark.parametrize(
    "damage",
    [
        lambda root: (root / "payload.bin").unlink(),
        lambda root: (root / "payload.bin").write_bytes(b"torn"),
        lambda root: (root / MANIFEST).write_bytes(b"{"),
        lambda root: (root / MANIFEST).unlink(),
        lambda root: (root / MANIFEST).write_text(
            json.dumps(json.loads((root / MANIFEST).read_text()) | {"metrics": {}})
        ),
        lambda root: (root / MANIFEST).write_text(json.dumps(json.loads((root / MANIFEST).read_text()) | {"odd": 1})),
    ],
)
def test_a_damaged_artifact_is_named_and_replaced(store, ran, damage, caplog):
    run_all(nodes(), store)
    root = store.find("data", nodes()["data"].fingerprint).root
    damage(root)
    action, reason = actions(nodes(), store)["data"]
    assert action == "run"
    assert "damaged" in reason
    assert str(root) in reason
    assert run_all(nodes(), store) == {"data": "run", "reference": "reused"}
    assert not inspect_artifact(store.find("data", nodes()["data"].fingerprint).root).flaws
    (warning,) = caplog.messages
    assert warning.startswith(f"data: {root}")


def test_what_a_newer_version_made_is_not_replaced(store, ran):
    run_all(nodes(), store)
    manifest = store.find("data", nodes()["data"].fingerprint).path(MANIFEST)
    facts = {name: value for name, value in json.loads(manifest.read_text()).items() if name != "checksum"}
    write_json(manifest, facts | {"schema_version": 2})
    before = manifest.read_bytes()
    for makes in (lambda: plan(nodes(), store), lambda: run_all(nodes(), store)):
        with pytest.raises(NewerFormat, match="by a newer flowctl"):
            makes()
    assert manifest.read_bytes() == before and ran == ["data", "reference"]


def test_flipped_bits_are_found_by_verification(store, ran):
    run_all(nodes(), store)
    artifact = store.find("data", nodes()["data"].fingerprint)
    (artifact.root / "payload.bin").write_bytes(b"Payload of data")
    assert inspect_artifact(artifact.root).flaws == {"payload.bin": "SHA-256 differs from the recorded one"}


def test_what_a_failed_stage_saved_is_resumed(store, ran, monkeypatch):
    def fails(job):
        job.saved(3, 10, "images")
        raise StageFailed("boom")

    node = nodes()["data"]
    working = node.stage.module()
    monkeypatch.setattr(dag.Stage, "module", lambda self: types.SimpleNamespace(run=fails))
    with pytest.raises(StageFailed, match="boom"):
        execute(node, {}, store, load("nfm-digits").compute)
    assert actions(nodes(), store)["data"] == ("resume", "saved at 3 of 10 images")
    monkeypatch.setattr(dag.Stage, "module", lambda self: working)
    outcome = execute(node, {}, store, load("nfm-digits").compute)
    assert outcome.action == "resumed"
    assert outcome.artifact.provenance.resumed == 1


def force(store, *stages):
    """`--force` of these stages by a run that ends with the reference."""
    forced = [nodes()[stage] for stage in stages]
    asked = rerun.wanted(forced, {"run": nodes()["reference"].fingerprint}, store)
    rerun.request(asked, forced, store)


def test_what_dead_ranks_left_half_written_is_not_published(store, ran, monkeypatch):
    """They are started again within the stage."""

    def run(job):
        (job.out / "w.bin").write_bytes(b"whole")
        (job.out / ".w.bin.0123abcd.partial").write_bytes(b"wh")
        return RESULT

    monkeypatch.setattr(dag.Stage, "module", lambda self: types.SimpleNamespace(run=run))
    node = dag.build(load("nfm-digits"))["data"]
    artifact = execute(node, {}, store, load("nfm-digits").compute).artifact
    assert [record.path for record in artifact.files] == ["w.bin"] and not inspect_artifact(artifact.root).flaws


def test_a_disk_that_is_full_for_a_moment_costs_no_more_than_a_line_of_progress(store, ran, monkeypatch):
    def run(job):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_text", full)
            job.progress(1, 2, "images")
        return RESULT

    def full(*given, **words):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(dag.Stage, "module", lambda self: types.SimpleNamespace(run=run))
    assert execute(dag.build(load("nfm-digits"))["data"], {}, store, load("nfm-digits").compute).action == "run"


def test_a_stage_begins_without_the_progress_of_an_earlier_process(store, ran, monkeypatch):
    """What looks at it meanwhile would take that process for the one at work."""
    node = nodes()["data"]
    work, seen = store.work("data", node.fingerprint), []
    work.mkdir(parents=True)
    write_json(work / "progress.json", {"pid": 12})
    run = dag.Stage.module(node.stage).run
    monkeypatch.setattr(
        dag.Stage,
        "module",
        lambda self: types.SimpleNamespace(
            run=lambda job: seen.append((job.work / "progress.json").exists()) or run(job)
        ),
    )
    run_all({"data": node}, store)
    assert seen == [False]


def test_force_runs_again_and_once(store, ran):
    run_all(nodes(), store)
    force(store, "data", "reference")
    assert run_all(nodes(), store) == {"data": "run", "reference": "run"}
    assert run_all(nodes(), store) == {"data": "reused", "reference": "reused"} and len(ran) == 4


@pytest.mark.parametrize("days", [-3, 3])
def test_the_order_in_which_artifacts_were_made_holds_though_the_clock_was_set(store, ran, monkeypatch, days):
    """A bank is kept in a repair only if its teacher was not made again since."""

    class Clock(datetime):
        @classmethod
        def now(cls, zone=None):
            return datetime.now(zone) + timedelta(days=days)

    run_all(nodes(), store)
    old = made(store)
    monkeypatch.setattr(execution, "datetime", Clock)
    force(store, "data")
    run_all(nodes(), store)
    new = made(store)
    assert new["data"].provenance.created > old["data"].provenance.created
    assert read_by(old["reference"], [old["data"]]) and not read_by(old["reference"], [new["data"]])
    force(store, "reference")
    run_all(nodes(), store)
    assert read_by(made(store)["reference"], [new["data"]])


def test_an_interrupted_force_goes_on_with_what_is_left_of_it(store, ran, monkeypatch):
    run_all(nodes(), store)
    force(store, "data", "reference")
    working = nodes()["data"].stage.module()
    seen = []

    def interrupted(job):
        seen.append(job.work / "of-this-attempt")
        if job.stage == "data":
            return working.run(job)
        seen[-1].touch()
        job.saved(3, 10, "images")
        raise Interrupted("stopped")

    monkeypatch.setattr(dag.Stage, "module", lambda self: types.SimpleNamespace(run=interrupted))
    for _ in range(2):  # the second attempt goes on from the first
        with pytest.raises(Interrupted):
            run_all(nodes(), store)
        assert seen[-1].exists()
        force(store, "data", "reference")  # the same command again
        assert actions(nodes(), store)["data"][0] == "reuse"
        assert actions(nodes(), store)["reference"] == ("resume", "forced by --force, saved at 3 of 10 images")
    monkeypatch.setattr(dag.Stage, "module", lambda self: working)
    assert run_all(nodes(), store) == {"data": "reused", "reference": "resumed"}
    assert actions(nodes(), store)["reference"][0] == "reuse"
    force(store, "data")  # a new request
    assert actions(nodes(), store)["data"] == ("run", "forced by --force")


def test_another_force_is_not_swallowed_by_one_that_was_interrupted(store, ran, monkeypatch):
    run_all(nodes(), store)
    force(store, "reference")
    force(store, "data", "reference")  # of another command
    assert {actions(nodes(), store)[stage] for stage in ("data", "reference")} == {("run", "forced by --force")}
    assert run_all(nodes(), store) == {"data": "run", "reference": "run"}


@pytest.mark.parametrize("other", [False, True])
def test_work_made_from_other_bytes_of_an_input_is_dropped(store, ran, monkeypatch, caplog, other):
    """The same settings, on another device or number of threads, give other bytes under the same fingerprint."""
    working = nodes()["data"].stage.module()
    there = []

    def reference(job):
        there.append((job.work / "half").exists())
        (job.work / "half").touch()
        job.saved(1, 2, "images")
        raise Interrupted("stopped")

    def data(job):
        (job.out / "payload.bin").write_bytes(b"other bytes")
        return RESULT

    def stage(of_data):
        run = {"data": of_data, "reference": reference}
        return types.SimpleNamespace(run=lambda job: run[job.stage](job))

    monkeypatch.setattr(dag.Stage, "module", lambda self: stage(working.run))
    for _ in range(2):
        with pytest.raises(Interrupted):
            run_all(nodes(), store)
    force(store, "data")
    monkeypatch.setattr(dag.Stage, "module", lambda self: stage(data if other else working.run))
    with pytest.raises(Interrupted):
        run_all(nodes(), store)
    assert there == [False, True, not other]
    assert ("data was made again" in caplog.text) == other


def test_an_input_that_changes_while_it_is_read_is_said(store, ran, monkeypatch, caplog):
    run_all(nodes(), store)
    working = nodes()["data"].stage.module()

    def reference(job):
        force(store, "data")
        payload = {"run": lambda job: (job.out / "payload.bin").write_bytes(b"other") and RESULT}
        with monkeypatch.context() as patch:
            patch.setattr(dag.Stage, "module", lambda self: types.SimpleNamespace(**payload))
            execute(nodes()["data"], {}, store, load("nfm-digits").compute)
        return working.run(job)

    force(store, "reference")
    run = {"data": working.run, "reference": reference}
    monkeypatch.setattr(dag.Stage, "module", lambda self: types.SimpleNamespace(run=lambda job: run[job.stage](job)))
    run_all(nodes(), store)
    assert "--force reference" in caplog.text


def test_networks_that_refer_to_themselves_are_freed_before_the_next_stage(store, ran, monkeypatch):
    class Network:
        pass

    left = []

    def run(job):
        network = Network()
        network.parent = network
        left.append(weakref.ref(network))
        (job.out / "payload.bin").touch()
        return RESULT

    monkeypatch.setattr(dag.Stage, "module", lambda self: types.SimpleNamespace(run=run))
    gc.disable()
    try:
        execute(nodes()["data"], {}, store, load("nfm-digits").compute)
        assert left[0]() is None
    finally:
        gc.enable()


def test_a_force_drops_what_was_saved_before_it(store, ran, monkeypatch):
    node = nodes()["data"]
    work = store.work("data", node.fingerprint)
    work.mkdir(parents=True)
    (work / "checkpoint").touch()
    write_json(work / "saved.json", {"done": 3, "total": 10, "unit": "images"})
    force(store, "data")
    assert actions(nodes(), store)["data"] == ("run", "forced by --force")
    there = []
    monkeypatch.setattr(
        dag.Stage,
        "module",
        lambda self: types.SimpleNamespace(run=lambda job: there.append((job.work / "checkpoint").exists()) or RESULT),
    )
    assert execute(node, {}, store, load("nfm-digits").compute).action == "run" and there == [False]


def test_a_request_is_met_by_the_artifact_of_a_process_that_died_after_publishing_it(store, ran):
    run_all(nodes(), store)
    force(store, "data")
    work = store.work("data", nodes()["data"].fingerprint)
    request = (work / rerun.REQUEST).read_bytes()
    run_all(nodes(), store)
    work.mkdir()
    (work / rerun.REQUEST).write_bytes(request)
    assert run_all(nodes(), store)["data"] == "reused" and not work.exists()
    work.mkdir()
    (work / rerun.REQUEST).write_text("torn")
    assert run_all(nodes(), store)["data"] == "reused"


def test_a_shared_artifact_keeps_its_name_whichever_recipe_replaces_it(store, ran):
    node = nodes()["data"]
    run_all(nodes(), store)
    first = store.find("data", node.fingerprint).root
    (first / "payload.bin").unlink()
    other = {"data": replace(node, label="another")}
    assert run_all(other, store) == {"data": "run"} and store.find("data", node.fingerprint).root == first


def test_files_that_change_while_they_are_read_are_noticed(store, ran, monkeypatch, tmp_path):
    folder = make_folder(tmp_path / "images", {"one.png": b"one", "two.png": b"two"})
    node = dag.build(load("nfm-digits", [f"data={{source: images, path: {folder}, size: 8}}"]))["data"]
    working = node.stage.module()

    def changed(job):
        result = working.run(job)
        (folder / "two.png").write_bytes(b"another")
        return result

    monkeypatch.setattr(dag.Stage, "module", lambda self: types.SimpleNamespace(run=changed))
    with pytest.raises(InputsChanged):
        execute(node, {}, store, load("nfm-digits").compute)
    assert store.find("data", node.fingerprint) is None


def test_a_remote_that_is_away_is_missed_only_where_it_was_counted_on(store, ran, monkeypatch):
    def away(*_):
        raise RemoteError("s3://bucket", "no answer", "Wait.")

    monkeypatch.setattr("pipeline.engine.execute.fetched", away)
    node = nodes()["data"]
    with pytest.raises(RemoteError):
        execute(node, {}, store, load("nfm-digits").compute, remote=object(), offered=True)
    assert execute(node, {}, store, load("nfm-digits").compute, remote=object()).action == "run"


def test_a_full_disk_is_one_message_with_its_remedy(store, ran, monkeypatch):
    def full(job):
        raise OSError(errno.ENOSPC, "No space left on device", "weights")

    monkeypatch.setattr(dag.Stage, "module", lambda self: types.SimpleNamespace(run=full))
    with pytest.raises(DiskError):
        execute(nodes()["data"], {}, store, load("nfm-digits").compute)


def test_a_stage_whose_result_has_no_place_is_refused_before_its_work(store, ran):
    (store.home / "artifacts" / "reference").symlink_to(store.home / "gone")
    with pytest.raises(UsageError):
        run_all(nodes(), store)
    assert ran == ["data"]


def test_a_stage_whose_artifacts_are_on_another_disk_is_published_there(store, ran, monkeypatch, tmp_path):
    (store.home / "artifacts" / "reference").symlink_to(tmp_path)
    real = os.rename

    def rename(source, target):
        if {Path(path).parent.resolve() == tmp_path for path in (source, target)} == {True, False}:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    assert run_all(nodes(), store) == {"data": "run", "reference": "run"}
    assert run_all(nodes(), store) == {"data": "reused", "reference": "reused"}
    assert store.works() == []


@pytest.mark.parametrize("kind", [errno.EACCES, errno.ENOENT])
def test_a_file_in_a_folder_next_to_the_store_is_none_of_its_own(store, ran, monkeypatch, kind):
    def fails(job):
        raise OSError(kind, "no", str(where))

    monkeypatch.setattr(dag.Stage, "module", lambda self: types.SimpleNamespace(run=fails))
    where = store.home / "work" / "weights"
    with pytest.raises(DiskError):
        execute(nodes()["data"], {}, store, load("nfm-digits").compute)
    where = store.home.with_name(f"{store.home.name}-images") / "one.png"
    with pytest.raises(OSError, match="no"):
        execute(nodes()["data"], {}, store, load("nfm-digits").compute)


def test_a_second_process_waits_for_the_first(store, ran):
    node = nodes()["data"]
    told = []
    import multiprocessing

    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()

    def hold():
        with store.lock("data", node.fingerprint, lambda holder: None):
            held.set()
            release.wait(10)

    other = context.Process(target=hold)
    other.start()
    held.wait(10)

    def waiting(holder):
        told.append(holder)
        release.set()

    assert execute(node, {}, store, load("nfm-digits").compute, waiting=waiting).action == "run"
    other.join()
    assert told == [f"process {other.pid} on {__import__('socket').gethostname()}"]
