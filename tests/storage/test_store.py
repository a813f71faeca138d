import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from storage.artifact import MANIFEST, Artifact, NewerFormat, Provenance, record_files
from storage.atomic import fsync_path, replacing, write_bytes, write_json
from storage.errors import DamageError, InputError, UsageError
from storage.inspection import inspect_artifact
from storage.store import PREFIX, Store
from storage.text import without_password

FINGERPRINT = "ab" * 32
ROOT = Path(__file__).parents[2]
PROVENANCE = Provenance(
    created="2026-01-01T00:00:00",
    wall_seconds=1,
    command=["x"],
    python="3",
    platform="p",
    packages={},
    git_revision=None,
    device="cpu",
    threads=1,
)


def publish(store: Store, content: bytes = b"weights", fingerprint: str = FINGERPRINT) -> Artifact:
    store.prepare()
    out = store.work("teacher", fingerprint) / "out"
    out.mkdir(parents=True, exist_ok=True)
    (out / "w.bin").write_bytes(content)
    return store.publish(manifest(out, fingerprint), out)


def manifest(out: Path, fingerprint: str = FINGERPRINT, **provenance) -> Artifact:
    """That of a teacher whose payload is `out`."""
    return Artifact(
        stage="teacher",
        stage_version=1,
        name="mine",
        fingerprint=fingerprint,
        config={},
        inputs={},
        metrics={"loss": 0.5},
        files=record_files(out),
        provenance=PROVENANCE.model_copy(update=provenance),
    )


def test_a_published_artifact_is_found_by_its_fingerprint(tmp_path):
    store = Store(tmp_path)
    artifact = publish(store)
    assert store.find("teacher", FINGERPRINT) == artifact
    assert artifact.path("w.bin").read_bytes() == b"weights"
    assert not inspect_artifact(artifact.root).flaws
    assert store.find("teacher", "cd" * 32) is None
    assert not store.work("teacher", FINGERPRINT).exists()


def test_publishing_again_replaces_what_was_damaged(tmp_path):
    store = Store(tmp_path)
    publish(store).path("w.bin").unlink()
    with pytest.raises(DamageError, match="missing"):
        store.find("teacher", FINGERPRINT)
    assert publish(store, b"new").path("w.bin").read_bytes() == b"new"
    assert not list((tmp_path / "work").glob(".discarded*"))


def test_a_replacement_waits_for_no_disk_between_its_two_renames(tmp_path, monkeypatch):
    """Readers find no artifact in between."""
    store, found = Store(tmp_path), []
    publish(store)

    def fsync(path):
        found.append(store.find("teacher", FINGERPRINT) is not None)
        fsync_path(path)

    for module in ("storage.store", "storage.atomic"):
        monkeypatch.setattr(f"{module}.fsync_path", fsync)
    publish(store, b"new")
    assert len(found) > 1 and all(found)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda facts: facts | {"fingerprint": "x"}, "fingerprint"),
        (lambda facts: facts | {"extra": 1}, "extra"),
        (lambda facts: {k: v for k, v in facts.items() if k != "files"}, "files"),
        (lambda facts: [], "valid"),
    ],
)
def test_an_edited_manifest_is_not_believed(tmp_path, change, word):
    store = Store(tmp_path)
    manifest = publish(store).path(MANIFEST)
    manifest.write_text(json.dumps(change(json.loads(manifest.read_text()))))
    with pytest.raises(DamageError, match=word):
        store.find("teacher", FINGERPRINT)


def test_a_manifest_of_a_newer_format_is_no_damage_unless_its_checksum_says_so(tmp_path):
    store = Store(tmp_path)
    manifest = publish(store).path(MANIFEST)
    facts = json.loads(manifest.read_text())
    newer = {name: value for name, value in facts.items() if name != "checksum"} | {"schema_version": 2, "licence": "x"}
    digest = hashlib.sha256(json.dumps(newer, sort_keys=True).encode()).hexdigest()
    write_json(manifest, newer | {"checksum": digest})
    with pytest.raises(NewerFormat, match=r"a newer flowctl, in format 2.*Use that version, or set FLOWCTL_HOME"):
        store.find("teacher", FINGERPRINT)
    write_json(manifest, facts | {"schema_version": 3})  # a flipped bit
    with pytest.raises(DamageError, match="not a valid manifest: schema_version: input should be 1") as raised:
        store.find("teacher", FINGERPRINT)
    assert not isinstance(raised.value, NewerFormat) and "\n" not in str(raised.value)


def test_what_lies_beside_an_artifact_hides_it_not(tmp_path):
    """A file that another system left, and a damaged copy that comes first."""
    store = Store(tmp_path)
    made = publish(store)
    (made.root.parent / f"._{made.root.name}").write_bytes(b"")
    (made.root.parent / f"other-{made.fingerprint[:PREFIX]}").write_bytes(b"")
    copy = made.root.parent / f"a-copy-of-{made.root.name}"
    shutil.copytree(made.root, copy)
    (copy / MANIFEST).write_text("{")
    assert store.find(made.stage, made.fingerprint).root == made.root
    shutil.rmtree(made.root)
    with pytest.raises(DamageError):
        store.find(made.stage, made.fingerprint)


def test_a_manifest_moved_to_another_fingerprint_is_noticed(tmp_path):
    store = Store(tmp_path)
    root = publish(store).root
    root.rename(root.with_name("mine-" + "cd" * 6))
    with pytest.raises(DamageError, match="another stage or fingerprint"):
        store.find("teacher", "cd" * 32)


def test_listing_names_damage_beside_what_is_sound(tmp_path):
    store = Store(tmp_path)
    publish(store)
    publish(store, fingerprint="cd" * 32).path(MANIFEST).write_text("{")
    assert sorted(type(found).__name__ for found in store.artifacts()) == ["Artifact", "DamageError"]


def test_a_store_that_cannot_be_written_to_says_so(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(InputError, match="FLOWCTL_HOME"):
        Store(blocked / "home").prepare()


@pytest.mark.parametrize("target", [None, "nowhere", "home"])
def test_a_file_or_a_link_that_leads_nowhere_is_no_empty_store(tmp_path, target):
    home = tmp_path / "home"
    home.write_text("mine") if target is None else home.symlink_to(target)
    with pytest.raises(UsageError) as error:
        Store(home)
    assert error.value.value == str(home)


def test_a_name_that_is_too_long_is_refused(tmp_path):
    with pytest.raises(UsageError) as error:
        Store(tmp_path / ("x" * 300))
    assert str(tmp_path) in error.value.value


@pytest.mark.parametrize("place", ["", "inside"])
def test_a_directory_that_may_not_be_read_is_refused(tmp_path, monkeypatch, place):
    """Permissions do not hold for root, who may run these tests."""

    def denied(*words):
        raise PermissionError(errno.EACCES, "Permission denied")

    if place:
        monkeypatch.setattr(Path, "lstat", denied)
    else:
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UsageError) as error:
        Store(tmp_path / place)
    assert str(tmp_path) in error.value.value


def test_a_store_whose_path_is_no_text_is_refused(tmp_path):
    home = tmp_path / os.fsdecode(b"caf\xe9") / "store"
    with pytest.raises(UsageError) as error:
        Store(home)
    assert error.value.value == str(home)
    str(error.value).encode()


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """A directory on another disk than `tmp_path`, or one to which and from which no rename leads."""
    others = (place for place in map(Path, ("/dev/shm", tempfile.gettempdir())) if os.access(place, os.W_OK))
    two = next((place for place in others if place.stat().st_dev != tmp_path.stat().st_dev), None)
    with tempfile.TemporaryDirectory(dir=two or tmp_path) as name:
        if two is None:
            real, disk = os.rename, Path(name)

            def rename(source, target):
                if len({Path(path).parent.resolve().is_relative_to(disk) for path in (source, target)}) == 2:
                    raise OSError(errno.EXDEV, "Invalid cross-device link")
                real(source, target)

            monkeypatch.setattr(os, "rename", rename)
        yield Path(name)


@pytest.mark.parametrize("linked", ["artifacts", "artifacts/teacher", "work", "work/teacher", "monitor"])
def test_any_folder_of_a_store_may_be_on_another_disk(tmp_path, disk, linked):
    (tmp_path / linked).parent.mkdir(exist_ok=True)
    (tmp_path / linked).symlink_to(disk)
    store = Store(tmp_path)
    publish(store).path("w.bin").unlink()
    artifact = publish(store, b"new")  # in the place of a damaged one
    assert store.find("teacher", FINGERPRINT) == artifact and store.roots() == [artifact.root]
    assert artifact.path("w.bin").read_bytes() == b"new" and not inspect_artifact(artifact.root).flaws
    assert not store.work("teacher", FINGERPRINT).exists()
    curves = store.monitor("teacher", FINGERPRINT)
    curves.mkdir(parents=True)
    aside = store.set_aside(artifact.root)
    assert (aside / "w.bin").read_bytes() == b"new" and store.roots() == store.directories("teacher", FINGERPRINT) == []
    for path in (aside, curves):
        store.discard(path)
    assert [path for path in (*tmp_path.rglob("*"), *disk.rglob("*")) if path.is_file()] == []


def test_an_overlay_whose_lower_directories_cannot_be_renamed_is_good_enough(tmp_path, monkeypatch):
    store = Store(tmp_path)
    below, real = publish(store).root, os.rename

    def rename(source, target):
        if Path(source) == below and (below / "w.bin").stat().st_ino == lower:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real(source, target)

    lower = (below / "w.bin").stat().st_ino
    monkeypatch.setattr(os, "rename", rename)
    assert publish(store, b"new").path("w.bin").read_bytes() == b"new"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [MANIFEST, "w.bin"]


@pytest.mark.parametrize("fails", ["copyfile", "rename"])
def test_a_move_to_another_disk_that_fails_leaves_all_as_it_was(tmp_path, disk, monkeypatch, fails):
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "teacher").symlink_to(disk)

    def fail(source, target):
        if fails == "rename" and not str(source).endswith(".partial"):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        raise OSError(errno.ENOSPC, "No space left on device")  # of the copy, or of its rename

    with monkeypatch.context() as broken, pytest.raises(OSError, match="No space"):
        broken.setattr(shutil if fails == "copyfile" else os, fails, fail)
        publish(Store(tmp_path))
    assert os.listdir(disk) == []
    assert (Store(tmp_path).work("teacher", FINGERPRINT) / "out" / "w.bin").read_bytes() == b"weights"
    assert publish(Store(tmp_path)).path("w.bin").is_file()


@pytest.mark.parametrize("wrong", ["a link that leads nowhere", "a file"])
def test_a_stage_whose_artifacts_have_no_place_is_refused(tmp_path, wrong):
    store = Store(tmp_path)
    store.prepare()
    place = tmp_path / "artifacts" / "teacher"
    place.write_text("") if wrong == "a file" else place.symlink_to(tmp_path / "gone")
    with pytest.raises(UsageError) as error:
        store.prepare_stage("teacher")
    assert str(place) in error.value.value
    store.prepare_stage("student")
    assert os.listdir(tmp_path / "artifacts" / "student") == []


def test_preparing_leaves_nothing_behind(tmp_path):
    Store(tmp_path).prepare()
    Store(tmp_path).prepare()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["artifacts", "cache", "locks", "work"]


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), replacing(path) as aside:
        aside.write_bytes(b"half")
        raise RuntimeError
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, float("nan"))
    assert json.loads(path.read_text()) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_disk_that_cannot_synchronise_directories_is_good_enough(tmp_path, monkeypatch):
    real = os.fsync

    def of_files(descriptor):
        if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir():
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", of_files)
    write_bytes(tmp_path / "file", b"x")
    assert (tmp_path / "file").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("https://me:secret@host:4200/api", "https://***@host:4200/api"),
        ("me:secret@host", "***@host"),
        ("http://host/api", "http://host/api"),
    ],
)
def test_a_password_in_a_url_is_not_shown(given, shown):
    assert without_password(given) == shown


def test_write_bytes_makes_its_folder(tmp_path):
    write_bytes(tmp_path / "a" / "b", b"x")
    assert (tmp_path / "a" / "b").read_bytes() == b"x"


def test_what_is_discarded_goes_by_one_rename(tmp_path, monkeypatch):
    store = Store(tmp_path)
    root = publish(store).root
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)  # killed before it was removed from the disk
    store.discard(root)
    assert store.find("teacher", FINGERPRINT) is None and store.roots() == [] and store.works() == []
    (left,) = (tmp_path / "work").glob(".discarded-*")
    assert left.name.endswith(root.name) and (left / "w.bin").read_bytes() == b"weights"
    (tmp_path / "note").write_text("a file goes as well")
    store.discard(tmp_path / "note")
    assert not (tmp_path / "note").exists()


HOLDER = """
import sys, time
from pathlib import Path
from storage.store import Store
with Store(Path(sys.argv[1])).lock("teacher", "ab" * 32, lambda holder: None):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the teacher's lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


class Stop(Exception):
    """What a wait ends with when the user does not want to wait."""


def test_whoever_waits_hears_the_wish_to_stop_at_any_time(tmp_path, holder):
    """`waiting` comes back again and again, so that nothing blocks beyond it, also if it returned too early."""
    told = []

    def waiting(name):
        told.append(name)
        if len(told) == 2:
            raise Stop

    with pytest.raises(Stop), Store(tmp_path).lock("teacher", FINGERPRINT, waiting):
        raise AssertionError("two processes hold one lock")
    assert told == [f"process {holder.pid} on {socket.gethostname()}"] * 2


def test_a_killed_holder_leaves_no_lock_but_its_name(tmp_path, holder):
    store = Store(tmp_path)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert json.loads(store.lock_path("teacher", FINGERPRINT).read_text())["pid"] == holder.pid
    with store.lock("teacher", FINGERPRINT, pytest.fail):
        path = store.lock_path("teacher", FINGERPRINT)
        assert store.holder(path) == f"process {os.getpid()} on {socket.gethostname()}"


@pytest.mark.parametrize("left", ['{"pid": 5, "host": "elsewhere"}', '{"pid": 5', "", '{"pid": null}'])
def test_what_a_dead_process_of_any_host_wrote_blocks_nobody(tmp_path, left):
    store = Store(tmp_path)
    path = store.lock_path("teacher", FINGERPRINT)
    path.parent.mkdir(parents=True)
    path.write_text(left)
    with store.lock("teacher", FINGERPRINT, pytest.fail):
        assert json.loads(path.read_text()) == {"pid": os.getpid(), "host": socket.gethostname()}


def test_the_holder_in_words(tmp_path):
    path, here = tmp_path / "teacher.lock", socket.gethostname()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()

    def holder(**facts):
        path.write_text(json.dumps(facts))
        return Store.holder(path)

    assert holder(pid=os.getpid(), host=here) == f"process {os.getpid()} on {here}"
    orphan = f"a process that was started by process {ended.pid} on {here}, which is gone"
    assert holder(pid=ended.pid, host=here) == orphan
    elsewhere = f"process 5 on elsewhere (should that machine be lost for good, delete {path})"
    assert holder(pid=5, host="elsewhere") == elsewhere
    assert holder() == "another process"


def test_a_deleted_lock_file_is_no_lock(tmp_path, holder):
    """The remedy for a lock that a lost machine left on a shared disk: the holder's file is gone, the next is new."""
    store = Store(tmp_path)
    store.lock_path("teacher", FINGERPRINT).unlink()
    with store.lock("teacher", FINGERPRINT, pytest.fail):
        assert holder.poll() is None


def test_to_look_at_a_lock_is_not_to_be_waited_for(tmp_path, monkeypatch):
    """`status` holds each lock for an instant to see whether it is free."""
    store = Store(tmp_path)
    path = store.lock_path("teacher", FINGERPRINT)
    path.parent.mkdir(parents=True)
    with open(path, "w") as probe:
        fcntl.flock(probe, fcntl.LOCK_SH)
        monkeypatch.setattr("storage.locks.PATIENCE", 60.0)  # however late the timer comes
        threading.Timer(0.05, fcntl.flock, (probe, fcntl.LOCK_UN)).start()
        with store.lock("teacher", FINGERPRINT, pytest.fail):
            pass


def test_a_disk_without_locks_is_named(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    lock = Store(tmp_path).lock("teacher", FINGERPRINT, pytest.fail)
    with pytest.raises(InputError, match=r"file system with locks.*No locks available"), lock:
        pass


def test_a_monitor_has_the_name_that_its_training_started_with(tmp_path):
    """TensorBoard shows it, grouped by stage."""
    store = Store(tmp_path)
    folder = store.monitor("student", FINGERPRINT, "mine[student.lr=1]")
    assert folder == tmp_path / "monitor" / "student" / f"mine[student.lr=1]-{FINGERPRINT[:12]}"
    folder.mkdir(parents=True)
    assert store.monitor("student", FINGERPRINT, "other") == store.monitor("student", FINGERPRINT) == folder
