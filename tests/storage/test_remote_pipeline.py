"""A recipe's real stages by way of a remote: a second machine fetches what the first has made, and makes the rest."""

import os
import shutil
from pathlib import Path

import pytest

from benchmarks import crash_recipes
from pipeline.engine.execute import Outcome, execute
from pipeline.engine.plan import plan
from pipeline.recipe.load import load
from pipeline.runtime.job import StopSignal
from storage.errors import DamageError, Interrupted
from storage.inspection import inspect_artifact
from storage.remote import Remote
from storage.store import Store

COMPUTE = load(*crash_recipes.RECIPES["NFM"]).compute
NODES = {node.name: node for node in crash_recipes.nodes(["NFM"]).values()}
STAGES = ("data", "teacher", "bank")


def make(store: Store, name: str, **options) -> Outcome:
    inputs = {role: store.find(role, source.fingerprint) for role, source in NODES[name].inputs.items()}
    return execute(NODES[name], inputs, store, COMPUTE, **options)


def digests(store: Store, name: str) -> dict[str, str]:
    return {record.path: record.sha256 for record in store.find(name, NODES[name].fingerprint).files}


def empty(home: Path) -> Store:
    store = Store(home)
    store.prepare()
    return store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Images, a teacher and its bank, by the real stages. Not to be changed."""
    store = empty(tmp_path_factory.mktemp("made"))
    for name in STAGES:
        make(store, name)
    return store


@pytest.fixture
def remote(bucket: str, made: Store) -> Remote:
    """All of it on a remote."""
    remote = Remote(bucket)
    for name in STAGES:
        remote.send(made.find(name, NODES[name].fingerprint))
    return remote


def actions(store: Store, remote: Remote | None, force: tuple[str, ...] = ()) -> dict[str, str]:
    nodes = {name: NODES[name] for name in (*STAGES, "student")}
    return {
        step.node.name: step.action for step in plan(nodes, store, [NODES[name].fingerprint for name in force], remote)
    }


def test_a_second_machine_fetches_what_the_first_has_made(remote, made, tmp_path):
    store, told = empty(tmp_path), []
    assert actions(store, remote) == dict.fromkeys(STAGES, "fetch") | {"student": "run"}
    assert actions(store, None) == dict.fromkeys((*STAGES, "student"), "run")
    assert actions(store, remote, ("teacher",))["teacher"] == "run"
    for name in STAGES:
        outcome = make(store, name, remote=remote, listeners=(told.append,))
        assert outcome.action == "fetched" and digests(store, name) == digests(made, name)
        assert outcome.artifact.provenance == made.find(name, NODES[name].fingerprint).provenance
        assert inspect_artifact(outcome.artifact.root).flaws == {}
        assert not store.work(name, NODES[name].fingerprint).exists()
        assert make(store, name, remote=remote).action == "reused"
    assert {report.unit for report in told} == {"MB fetched"}
    assert actions(store, remote) == dict.fromkeys(STAGES, "reuse") | {"student": "run"}


@pytest.mark.slow
def test_a_fetched_bank_trains_the_same_student(remote, made, tmp_path):
    here, there = empty(tmp_path / "here"), empty(tmp_path / "there")
    shutil.copytree(made.home / "artifacts", here.home / "artifacts", dirs_exist_ok=True)
    for name in (*STAGES, "student"):
        make(here, name)
        make(there, name, remote=remote)
    assert digests(here, "student") == digests(there, "student")


def test_what_is_damaged_here_is_fetched_from_there(remote, made, tmp_path):
    store = empty(tmp_path)
    for name in STAGES:
        make(store, name, remote=remote)
    root = store.find("teacher", NODES["teacher"].fingerprint).root
    for file in root.rglob("*.safetensors"):
        os.truncate(file, 10)
    step = next(step for step in plan(NODES, store, (), remote) if step.node.name == "teacher")
    assert step.action == "fetch" and "damaged" in step.reason and remote.url in step.reason
    assert make(store, "teacher", remote=remote).action == "fetched"
    assert digests(store, "teacher") == digests(made, "teacher")


def test_a_damaged_copy_is_named_and_no_training_starts_in_silence(remote, made, tmp_path):
    import obstore

    store, artifact = empty(tmp_path), made.find("teacher", NODES["teacher"].fingerprint)
    path = next(record.path for record in artifact.files if record.path.endswith(".safetensors"))
    place, key = remote._store, remote.address(artifact, path).removeprefix(remote.url + "/")
    data = obstore.get(place, key).bytes().to_bytes()
    make(store, "data", remote=remote)
    obstore.put(place, key, data[:-1] + bytes([data[-1] ^ 1]))  # of its size, so that the plan cannot know
    assert actions(store, remote)["teacher"] == "fetch"
    with pytest.raises(DamageError, match=rf"{remote.address(artifact, path)}: its bytes are not those recorded"):
        make(store, "teacher", remote=remote)
    obstore.put(place, key, data[:-1])
    with pytest.raises(DamageError, match=rf"{remote.address(artifact, path)}: \d+ bytes, recorded {len(data)}"):
        plan(NODES, store, (), remote)
    assert store.find("teacher", NODES["teacher"].fingerprint) is None
    obstore.put(place, key, data)
    assert make(store, "teacher", remote=remote).action == "fetched"


def test_a_stopped_fetch_says_so_and_goes_on(remote, made, tmp_path):
    store, stop = empty(tmp_path), StopSignal()
    stop.request("Ctrl-C")
    with pytest.raises(Interrupted, match=r"Stopped \(Ctrl-C\) while data was fetched"):
        make(store, "data", remote=remote, stop=stop)
    assert store.find("data", NODES["data"].fingerprint) is None
    assert make(store, "data", remote=remote).action == "fetched"


def test_a_bank_opens_where_it_lies_as_plain_zarr(remote, made):
    """No code of ours between the bucket and the numbers."""
    import numpy as np
    import zarr
    from obstore.store import S3Store
    from zarr.storage import ObjectStore

    from storage.bank import Bank

    artifact = made.find("bank", NODES["bank"].fingerprint)
    bank = next(path for path in artifact.root.iterdir() if path.suffix == ".zarr")
    place = S3Store.from_url(remote.address(artifact, bank.name), client_options={"allow_http": True})
    group = zarr.open_group(ObjectStore(place, read_only=True), mode="r", zarr_format=3)
    here, there = Bank.open(bank).load()["z"], group["z"][:]
    assert np.isfinite(there).all() and there.std() > 0.1
    np.testing.assert_array_equal(there, here.reshape(there.shape))
