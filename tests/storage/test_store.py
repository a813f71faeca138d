import json

import pytest

from storage.artifact import MANIFEST, Artifact, Provenance, record_files
from storage.atomic import replacing, write_bytes, write_json
from storage.errors import DamageError, InputError
from storage.store import Store

FINGERPRINT = "ab" * 32
PROVENANCE = Provenance(created="2026-01-01T00:00:00", wall_seconds=1, command=["x"], python="3", platform="p",
                        packages={}, git_revision=None, device="cpu", threads=1)


def publish(store: Store, content: bytes = b"weights", fingerprint: str = FINGERPRINT) -> Artifact:
    store.prepare()
    out = store.work("teacher", fingerprint) / "out"
    out.mkdir(parents=True)
    (out / "w.bin").write_bytes(content)
    return store.publish(Artifact(stage="teacher", stage_version=1, name="mine", fingerprint=fingerprint, config={},
                                  inputs={}, metrics={}, files=record_files(out), provenance=PROVENANCE), out)


def test_a_published_artifact_is_found_by_its_fingerprint(tmp_path):
    store = Store(tmp_path)
    artifact = publish(store)
    assert store.find("teacher", FINGERPRINT) == artifact
    assert artifact.path("w.bin").read_bytes() == b"weights"
    assert artifact.problems() == []
    assert store.find("teacher", "cd" * 32) is None
    assert not store.work("teacher", FINGERPRINT).exists()


def test_publishing_again_replaces_what_was_damaged(tmp_path):
    store = Store(tmp_path)
    publish(store).path("w.bin").unlink()
    with pytest.raises(DamageError, match="missing"):
        store.find("teacher", FINGERPRINT)
    assert publish(store, b"new").path("w.bin").read_bytes() == b"new"
    assert not list((tmp_path / "work").glob(".discarded*"))


@pytest.mark.parametrize(("change", "word"), [
    (lambda facts: facts | {"fingerprint": "x"}, "fingerprint"), (lambda facts: facts | {"extra": 1}, "extra"),
    (lambda facts: {k: v for k, v in facts.items() if k != "files"}, "files"), (lambda facts: [], "valid")])
def test_an_edited_manifest_is_not_believed(tmp_path, change, word):
    store = Store(tmp_path)
    manifest = publish(store).path(MANIFEST)
    manifest.write_text(json.dumps(change(json.loads(manifest.read_text()))))
    with pytest.raises(DamageError, match=word):
        store.find("teacher", FINGERPRINT)


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


def test_write_bytes_makes_its_folder(tmp_path):
    write_bytes(tmp_path / "a" / "b", b"x")
    assert (tmp_path / "a" / "b").read_bytes() == b"x"
