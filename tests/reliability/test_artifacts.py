"""A published artifact whose files are torn, flipped or gone: what is read is what was written, or it is named."""

import json
import shutil

import pytest

from storage.artifact import MANIFEST, Artifact
from storage.errors import DamageError
from storage.inspection import inspect_artifact
from tests.reliability import damage
from tests.reliability.conftest import NODES, PAYLOADS, digests, make, root_of

# A stage that reads the artifact, and so must notice.
READERS = {
    "NFM: data": "NFM: teacher",
    "NFM: teacher": "NFM: bank",
    "NFM: bank": "NFM: student",
    "NFM: student": "NFM: pairs",
    "NFM: pairs": "NFM: onestep",
    "NFM: reference": "NFM: evaluation",
    "semidiscrete: potentials": "semidiscrete: student",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PAYLOADS)
def test_every_file_that_is_not_of_its_size_is_named(copied, name):
    store, node = copied(), NODES[name]
    root = root_of(store, name)
    files = [file for file in root.rglob("*") if file.is_file()]
    assert len(files) > 1
    for file in files:
        whole = file.read_bytes()
        for harm in damage.RESIZING:
            harm(file)
            with pytest.raises(DamageError) as error:
                store.find(node.name, node.fingerprint)
            assert str(file if file.exists() else root) in str(error.value)
            file.unlink(missing_ok=True)
            file.write_bytes(whole)
    assert not inspect_artifact(store.find(node.name, node.fingerprint).root).flaws


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_flipped_bit_anywhere_in_a_manifest_is_noticed_or_changes_nothing(real, tmp_path, name):
    """A manifest holds what later stages compute with, such as sigma_f and the teacher's schedule."""
    root = tmp_path / root_of(real, name).name
    shutil.copytree(root_of(real, name), root)
    manifest = root / MANIFEST
    whole, sound = manifest.read_bytes(), Artifact.read(root)
    noticed = 0
    places = range(0, len(whole), 31)
    for place in places:
        data = bytearray(whole)
        data[place] ^= 1 << place % 8
        manifest.write_bytes(bytes(data))
        try:
            assert Artifact.read(root) == sound, f"byte {place}: {bytes(data[place - 20 : place + 20])}"
        except DamageError as error:
            assert str(manifest) in str(error)
            noticed += 1
    assert noticed > 0.6 * len(places)  # the rest is indentation


@pytest.mark.parametrize("name", READERS)
def test_a_stage_computes_nothing_from_bytes_that_are_not_those_written(copied, name):
    """Every file without a checksum of its own, and one of each array. The kinds of damage take turns."""
    reader = READERS[name]
    store = copied(*[reader] * (reader in PAYLOADS))
    root = root_of(store, name)
    files = [file for file in root.rglob("*") if file.is_file() and file.name != MANIFEST and ".zarr" not in str(file)]
    files += sorted(root.glob("*.zarr/**/c.0*"))
    harmed = 0
    for number, file in enumerate(files):
        whole = file.read_bytes()
        damage.SILENT[number % len(damage.SILENT)](file)
        if file.read_bytes() == whole:
            continue
        harmed += 1
        with pytest.raises(DamageError) as error:
            make(store, reader)
        assert file.name in str(error.value)
        assert "verify --repair" in str(error.value) or "Remove" in str(error.value)
        file.unlink()
        file.write_bytes(whole)
    assert harmed


def test_damage_that_shows_is_repaired_by_the_next_run_to_the_same_bytes(copied, real):
    store = copied()
    for harm, pattern in ((damage.torn, "weights.safetensors"), (damage.deleted, MANIFEST)):
        harm(root_of(store, "NFM: onestep") / pattern)
        assert make(store, "NFM: onestep").action == "run"
        assert digests(store, "NFM: onestep") == digests(real, "NFM: onestep")


def test_manifests_of_before_they_had_a_checksum_are_read(real, tmp_path):
    root = tmp_path / root_of(real, "NFM: pairs").name
    shutil.copytree(root_of(real, "NFM: pairs"), root)
    facts = json.loads((root / MANIFEST).read_text())
    del facts["checksum"]
    (root / MANIFEST).write_text(json.dumps(facts))
    assert Artifact.read(root).metrics == facts["metrics"]
