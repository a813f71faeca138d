"""Every kind of file in the store, damaged in every way: named, by file."""

import shutil

import pytest

from storage.artifact import MANIFEST, Artifact
from storage.atomic import sha256_file
from storage.checksummed_json import write_checksummed
from storage.inspection import FOREIGN, LINK, inspect_artifact, inspect_work, unchanged
from storage.store import Store
from tests.storage.test_bank import write
from tests.storage.test_bank_reopen import DAMAGE, flip
from tests.storage.test_store import FINGERPRINT, publish


@pytest.fixture
def artifact(tmp_path):
    """A published artifact with a bank beside its weights."""
    store = Store(tmp_path)
    out = store.work("teacher", FINGERPRINT) / "out"
    write(out / "bank.zarr")
    return publish(store)


def test_a_sound_artifact(artifact):
    finding = inspect_artifact(artifact.root)
    assert finding.flaws == {} and finding.artifact == artifact and finding.key == ("teacher", FINGERPRINT[:12])


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize(
    "file",
    [
        "w.bin",
        "bank.zarr/z/c.1.0.0.0",
        "bank.zarr/bank.json",
        "bank.zarr/facts.json",
        "bank.zarr/x/zarr.json",
        "bank.zarr/complete/000002.json",
    ],
)
def test_any_damaged_file_is_named_and_no_other(artifact, file, how):
    DAMAGE[how](artifact.root / file)
    finding = inspect_artifact(artifact.root)
    assert list(finding.flaws) == [file]
    assert {"flipped": "differs", "deleted": "missing", "torn": "recorded"}[how] in finding.flaws[file]
    assert finding.artifact.files == artifact.files  # the manifest still tells what the bytes were


def test_all_damaged_files_are_named(artifact):
    (artifact.root / "w.bin").unlink()
    flip(artifact.root / "bank.zarr/z/c.0.0.0.0")
    (artifact.root / "bank.zarr/labels/c.3").write_bytes(b"")
    (artifact.root / "notes.txt").write_text("not ours")
    assert inspect_artifact(artifact.root).flaws == {
        "bank.zarr/labels/c.3": f"0 bytes, recorded {next(f.size for f in artifact.files if 'labels/c.3' in f.path)}",
        "bank.zarr/z/c.0.0.0.0": "SHA-256 differs from the recorded one",
        "notes.txt": FOREIGN,
        "w.bin": "is missing",
    }


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_text("{"), "not a valid manifest"),
        (lambda path: path.write_text(path.read_text().replace('"cpu"', '"cpv"')), "does not have its checksum"),
    ],
)
def test_a_bank_is_looked_into_though_the_manifest_is_lost(artifact, damage, said):
    damage(artifact.root / MANIFEST)
    flip(artifact.root / "bank.zarr/z/c.2.0.0.0")
    finding = inspect_artifact(artifact.root)
    assert finding.artifact is None and set(finding.flaws) == {MANIFEST, "bank.zarr/z/c.2.0.0.0"}
    assert said in finding.flaws[MANIFEST]


def test_a_manifest_under_another_name_is_not_believed(artifact):
    other = artifact.root.rename(artifact.root.with_name("mine-" + "cd" * 6))
    finding = inspect_artifact(other)
    assert finding.artifact is None and finding.flaws == {MANIFEST: "it names another stage or fingerprint"}


def test_a_link_is_not_the_file(artifact, tmp_path):
    for name in ("w.bin", "bank.zarr/labels"):
        (artifact.root / name).rename(tmp_path / "elsewhere")
        (artifact.root / name).symlink_to(tmp_path / "elsewhere")
        assert set(inspect_artifact(artifact.root).flaws.values()) == {LINK}
        (artifact.root / name).unlink()
        (tmp_path / "elsewhere").rename(artifact.root / name)
    assert inspect_artifact(artifact.root).flaws == {}


def test_a_bit_that_flipped_before_the_manifest_was_written(tmp_path):
    """While the stage still worked: the manifest holds the flipped byte's digest, the bank's own checksum does not."""
    store = Store(tmp_path)
    out = store.work("teacher", FINGERPRINT) / "out"
    write(out / "bank.zarr")
    flip(out / "bank.zarr/z/c.1.0.0.0")
    artifact = publish(store)
    assert inspect_artifact(artifact.root).flaws == {"bank.zarr/z/c.1.0.0.0": "its bytes are not those written"}


@pytest.mark.parametrize("fate", ["removed", "removed before", "replaced"])
def test_what_others_change_while_it_is_read_is_not_found_damaged(artifact, tmp_path, monkeypatch, fate):
    def meanwhile(*_):
        artifact.root.rename(tmp_path / "aside")
        if fate == "replaced":
            publish(Store(tmp_path), b"other")

    if fate == "removed before":
        meanwhile()
    else:
        read = Artifact.read
        monkeypatch.setattr(Artifact, "read", lambda root: (read(root), monkeypatch.undo(), meanwhile())[0])
    assert unchanged(artifact.root, inspect_artifact) is None
    if fate == "replaced":
        assert unchanged(artifact.root, inspect_artifact).flaws == {}


def test_saved_work_that_ends_while_it_is_read_is_not_found_damaged(work):
    assert unchanged(work, inspect_work).flaws == {}

    def ending(work):
        shutil.rmtree(work)
        return inspect_work(work)

    assert unchanged(work, ending) is None


def test_an_error_about_a_directory_that_nothing_has_changed_is_raised(work):
    def fails(work):
        raise FileNotFoundError

    with pytest.raises(FileNotFoundError):
        unchanged(work, fails)


@pytest.fixture
def work(tmp_path):
    """What a stopped stage has saved: two checkpoints and half a bank."""
    work = tmp_path / "work" / "student" / FINGERPRINT[:12]
    write(work / "out/bank.zarr", order=slice(0, 2), finish=False)
    (work / "checkpoints").mkdir()
    for step in ("step-000000001", "step-000000002"):
        tensors = work / "checkpoints" / f"{step}.safetensors"
        tensors.write_bytes(step.encode() * 100)
        write_checksummed(tensors.with_suffix(".json"), {"step": 1, "sha256": sha256_file(tensors), "state": {}})
    return work


def test_sound_work(work):
    finding = inspect_work(work)
    assert finding.flaws == {} and finding.key == ("student", FINGERPRINT[:12])


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_checkpoint_is_named(work, how):
    DAMAGE[how](work / "checkpoints/step-000000002.safetensors")
    assert list(inspect_work(work).flaws) == ["checkpoints/step-000000002.json"]


@pytest.mark.parametrize("text", ['{"step": 1, "sha', "[]", '{"step": 2, "sha256": "0", "state": {}}'])
def test_a_damaged_record_vouches_for_nothing(work, text):
    (work / "checkpoints/step-000000001.json").write_text(text)
    assert list(inspect_work(work).flaws) == ["checkpoints/step-000000001.json"]


@pytest.mark.parametrize("folder", ["checkpoints", "refinement"])  # of a training, of LOOM's noises before it
def test_checkpoints_as_stages_write_them(tmp_path, folder):
    import torch

    from pipeline.training.checkpoint import save_checkpoint

    work = tmp_path / "work" / "student" / FINGERPRINT[:12]
    save_checkpoint(work / folder, 64, {"memory.tau": torch.arange(9)}, {"step": 64, "window": [0.5]})
    assert inspect_work(work).flaws == {}
    (record,) = work.glob(f"{folder}/*.json")
    record.write_text(record.read_text().replace("0.5", "0.6"))
    assert list(inspect_work(work).flaws) == [f"{folder}/step-000000064.json"]


def test_a_damaged_shard_of_unfinished_work_is_named(work):
    flip(work / "out/bank.zarr/z/c.1.0.0.0")
    assert list(inspect_work(work).flaws) == ["out/bank.zarr/z/c.1.0.0.0"]


OTHERS = {
    "another shape": lambda file: file.write_text("5"),
    "a digit": lambda file: file.write_text(file.read_text().replace("0.97", "0.87")),
}


@pytest.mark.parametrize("how", [*DAMAGE, *OTHERS])
def test_damaged_scores_of_an_unfinished_evaluation_are_named(work, how):
    write_checksummed(work / "scores.json", {"scores": [[{"value": 0.97}]]})
    assert inspect_work(work).flaws == {}
    (DAMAGE | OTHERS)[how](work / "scores.json")
    assert list(inspect_work(work).flaws) == ([] if how == "deleted" else ["scores.json"])
