"""Artifacts to a real S3 server and back: the same bytes, whatever happens to the process in between."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import obstore
import pytest
from obstore.store import S3Store

from storage.artifact import MANIFEST, Artifact
from storage.errors import DamageError, Interrupted
from storage.inspection import inspect_artifact
from storage.remote import Remote, _files
from storage.store import Store
from tests.storage.test_store import FINGERPRINT, manifest

ROOT = Path(__file__).parents[2]
LARGE = 2 * 5 * 2**20 + 17  # bytes: three parts of 5 MiB, the least that S3 takes


def publish(
    home: Path, seed: int = 0, large: int = 0, fingerprint: str = FINGERPRINT, day: int = 1
) -> tuple[Store, Artifact]:
    """An artifact of seven files, one of them empty, in a store of its own; made on that day of a month."""
    store, random = Store(home), np.random.default_rng(seed)
    store.prepare()
    out = store.work("teacher", fingerprint) / "out"
    for number in range(5):
        file = out / "folder" / f"c.{number}.0"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(random.bytes(1000 + number))
    (out / "weights.bin").write_bytes(random.bytes(large))
    (out / "empty.txt").write_bytes(b"")
    return store, store.publish(manifest(out, fingerprint, created=f"2026-01-{day:02}T00:00:00+00:00"), out)


def fetched(remote: Remote, home: Path, fingerprint: str = FINGERPRINT) -> Artifact:
    """The artifact on another machine."""
    store = Store(home)
    store.prepare()
    artifact = remote.find("teacher", fingerprint)
    aside = store.work("teacher", fingerprint) / "fetched"
    remote.fetch(artifact, aside)
    return store.publish(artifact, aside)


def contents(root: Path) -> dict[str, bytes]:
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def client(remote: Remote) -> S3Store:
    """The place as anybody sees it."""
    return S3Store.from_url(remote.url, client_options={"allow_http": True})


def key(remote: Remote, artifact: Artifact, path: str) -> str:
    return remote.address(artifact, path).removeprefix(remote.url + "/")


def listed(remote: Remote) -> dict[str, int]:
    return {item["path"]: item["size"] for page in obstore.list(client(remote)) for item in page}


def same(one: Artifact | None, other: Artifact) -> bool:
    """Whether two manifests say the same, wherever they lie."""
    return one is not None and one.checksum == other.checksum


@pytest.fixture
def remote(bucket: str) -> Remote:
    return Remote(bucket)


@pytest.mark.parametrize("large", [3000, LARGE])
def test_another_machine_gets_the_same_bytes(remote, tmp_path, monkeypatch, large):
    monkeypatch.setattr(_files, "PART", 5 * 2**20)
    _, artifact = publish(tmp_path / "one", large=large)
    moved = []
    assert remote.find("teacher", FINGERPRINT) is None
    assert remote.send(artifact, moment=moved.append) == sum(record.size for record in artifact.files) == sum(moved)
    again = fetched(remote, tmp_path / "two")
    assert contents(again.root) == contents(artifact.root)
    assert again.root.relative_to(tmp_path / "two") == artifact.root.relative_to(tmp_path / "one")
    assert not (tmp_path / "two" / "work" / "teacher" / FINGERPRINT[:12]).exists()
    assert remote.keys() == [("teacher", FINGERPRINT)] and remote.flaws(artifact) == {}


def test_what_is_there_is_not_sent_again(remote, tmp_path, monkeypatch):
    _, artifact = publish(tmp_path)
    remote.send(artifact)
    monkeypatch.setattr(_files, "send", None)
    monkeypatch.setattr(obstore, "put", None)
    assert remote.send(artifact) is None and remote.send(artifact, replace=True) is None


def test_without_a_manifest_there_is_no_artifact(remote, tmp_path):
    _, artifact = publish(tmp_path)
    remote.send(artifact)
    obstore.delete(client(remote), f"artifacts/teacher/{FINGERPRINT}/{MANIFEST}")
    assert remote.find("teacher", FINGERPRINT) is None and remote.keys() == [("teacher", FINGERPRINT)]
    assert remote.send(artifact) == 0 and same(remote.find("teacher", FINGERPRINT), artifact)


KILLED = """
import os, signal, sys
from pathlib import Path
from storage.artifact import Artifact
from storage.remote import Remote, _files, _remote
url, root, kind, at = sys.argv[1:]
left = int(at)
_files.PART, _remote.AT_ONCE = 5 * 2**20, 1
def die(size):
    global left
    left -= size if kind == "bytes" else 1
    if left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
Remote(url).send(Artifact.read(Path(root)), moment=die)
"""


@pytest.mark.parametrize(("kind", "at"), [("moments", 2), ("moments", 5), ("bytes", 6 * 2**20)])
def test_a_killed_upload_is_finished_by_the_next_call(remote, tmp_path, monkeypatch, kind, at):
    monkeypatch.setattr(_files, "PART", 5 * 2**20)
    _, artifact = publish(tmp_path / "one", large=LARGE)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, remote.url, str(artifact.root), kind, str(at)],
        cwd=ROOT,
        timeout=180,
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert remote.find("teacher", FINGERPRINT) is None
    there = listed(remote)
    assert there and not [path for path in there if path.endswith(MANIFEST)]
    total = sum(record.size for record in artifact.files)
    assert 0 < remote.send(artifact) == total - sum(there.values()) < total
    assert contents(fetched(remote, tmp_path / "two").root) == contents(artifact.root)


def test_a_killed_fetch_is_finished_by_the_next_call(remote, tmp_path, monkeypatch):
    _, artifact = publish(tmp_path / "one")
    remote.send(artifact)
    aside, got = tmp_path / "aside", []

    def leave(size: int) -> None:
        got.append(size)
        if len(got) == 4:
            raise Interrupted("now")

    with pytest.raises(Interrupted):
        remote.fetch(artifact, aside, leave)
    (aside / "folder" / ".c.9.partial").write_bytes(b"half")  # what kill -9 leaves
    (aside / "folder" / "c.0.0").write_bytes(b"x" * 1000)  # and a disk
    before, asked, get_range = {path for path in contents(aside)}, [], obstore.get_range
    monkeypatch.setattr(
        obstore, "get_range", lambda store, path, **span: asked.append(path) or get_range(store, path, **span)
    )
    remote.fetch(artifact, aside)
    assert contents(aside) == {path: data for path, data in contents(artifact.root).items() if path != MANIFEST}
    assert len(before) > 2 and "folder/c.0.0" in before and len(asked) < len(artifact.files) - 1


DAMAGE = {
    "torn": (lambda data: data[:-1], r"folder/c\.2\.0: 1001 bytes, recorded 1002"),
    "missing": (None, r"folder/c\.2\.0: is missing"),
    "altered": (lambda data: bytes([data[0] ^ 1]) + data[1:], r"folder/c\.2\.0: its bytes are not those recorded"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_file_that_is_not_as_recorded_is_named_and_refused(remote, tmp_path, kind):
    change, words = DAMAGE[kind]
    _, artifact = publish(tmp_path / "one")
    remote.send(artifact)
    place, path = client(remote), key(remote, artifact, "folder/c.2.0")
    if change is None:
        obstore.delete(place, path)
    else:
        obstore.put(place, path, change(obstore.get(place, path).bytes().to_bytes()))
    with pytest.raises(DamageError, match=rf"{remote.url}/.*{words}.*verify --remote --repair"):
        remote.fetch(artifact, tmp_path / "two")
    assert not (tmp_path / "two" / "folder" / "c.2.0").exists()
    assert list(remote.flaws(artifact)) == ["folder/c.2.0"]
    remote.retract("teacher", FINGERPRINT, [remote.address(artifact, "folder/c.2.0")])
    assert remote.find("teacher", FINGERPRINT) is None
    assert remote.send(artifact) == 1002 and remote.flaws(artifact) == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data[:100], "not a valid manifest"),
        (lambda data: b"[" * 100_000, "not a valid manifest"),
        (lambda data: data.replace(b"0.5", b"0.25"), "does not have its checksum"),
        (lambda data: data.replace(b"abab", b"cdcd"), "checksum"),
    ],
)
def test_a_manifest_that_does_not_hold_is_refused_and_replaced(remote, tmp_path, change, words):
    _, artifact = publish(tmp_path)
    remote.send(artifact)
    place, path = client(remote), f"artifacts/teacher/{FINGERPRINT}/{MANIFEST}"
    obstore.put(place, path, change(obstore.get(place, path).bytes().to_bytes()))
    with pytest.raises(DamageError, match=rf"{remote.url}/{path}.*{words}"):
        remote.find("teacher", FINGERPRINT)
    assert remote.send(artifact) == 0 and same(remote.find("teacher", FINGERPRINT), artifact)


@pytest.mark.parametrize("foreign", [{"name": "../../escaped"}, {"fingerprint": "cd" * 32}])
def test_a_sound_manifest_of_something_else_is_refused(remote, tmp_path, foreign):
    _, artifact = publish(tmp_path)
    facts = artifact.model_copy(update=foreign)
    obstore.put(client(remote), f"artifacts/teacher/{FINGERPRINT}/{MANIFEST}", facts.model_dump_json().encode())
    with pytest.raises(DamageError, match=r"its name is '../../escaped'|another stage or fingerprint"):
        remote.find("teacher", FINGERPRINT)


@pytest.mark.parametrize("large", [3000, LARGE])
def test_a_damaged_local_file_is_not_sent(remote, tmp_path, monkeypatch, large):
    monkeypatch.setattr(_files, "PART", 5 * 2**20)
    _, artifact = publish(tmp_path, large=large)
    with open(artifact.path("weights.bin"), "r+b") as stream:
        stream.seek(large - 1)
        last = stream.read(1)
        stream.seek(large - 1)
        stream.write(bytes([last[0] ^ 1]))
    with pytest.raises(DamageError, match=r"weights\.bin: its bytes are not those recorded.*verify --repair"):
        remote.send(artifact)
    assert remote.find("teacher", FINGERPRINT) is None
    assert not [path for path in listed(remote) if path.endswith("weights.bin")]


@pytest.mark.parametrize("bytes_", ["same", "other"])
def test_two_that_send_at_once_leave_one_whole_artifact(remote, tmp_path, bytes_):
    """On two machines the same fingerprint may have other bytes: one of the two wins, and nothing is mixed."""
    artifacts = [publish(tmp_path / str(number), seed=0 if bytes_ == "same" else number)[1] for number in range(2)]
    start, failures = threading.Barrier(2), []

    def send(artifact: Artifact) -> None:
        start.wait()
        try:
            remote.send(artifact, replace=True)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=send, args=(artifact,)) for artifact in artifacts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    found = fetched(remote, tmp_path / "three")
    assert contents(found.root) in [contents(artifact.root) for artifact in artifacts]
    assert not inspect_artifact(found.root).flaws
