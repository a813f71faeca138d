"""What the shipped recipes promise to one another, and that the large one is sound before days are spent on it."""

import pytest
from safetensors.torch import save_file
from typer.testing import CliRunner

from flows.cli.app import app
from pipeline.engine.dag import build
from pipeline.recipe.load import load, shipped
from pipeline.training.estimate import estimate
from storage.atomic import sha256_file
from tests.models.inception_weights import random_weights
from tests.pipeline.data.sources.formats import make_cifar10_archive


@pytest.mark.parametrize("data", ["digits", "cifar10"])
@pytest.mark.parametrize("name", ["fm", "ot", "loom", "sd"])
def test_compared_recipes_differ_from_nfm_in_the_coupling_alone(name, data):
    nfm, other = load(f"nfm-{data}"), load(f"{name}-{data}")
    assert other.student.coupling != nfm.student.coupling
    mine, theirs = nfm.sections()["student"], other.sections()["student"]
    assert theirs.model_copy(update={"coupling": nfm.student.coupling}) == mine
    assert other.data == nfm.data
    assert other.reference == nfm.reference
    assert other.seed == nfm.seed
    assert other.evaluation.samples == nfm.evaluation.samples
    assert set(other.evaluation.student) == set(nfm.evaluation.student)


def test_recipes_on_the_same_data_share_its_artifact_and_reference():
    shared = [
        {name: node.fingerprint for name, node in build(load(recipe)).items() if name in ("data", "reference")}
        for recipe in shipped()
        if recipe.endswith("-digits")
    ]
    assert all(item == shared[0] for item in shared)


def test_cifar10_is_the_network_of_the_literature_and_fits_a_24_gb_card():
    nodes = build(load("nfm-cifar10"))
    figures = {name: estimate(node) for name, node in nodes.items()}
    # 35,746,307 without classes, and an embedding of 10 classes and none.
    assert figures["student"].parameters == 35_746_307 + 11 * 512
    assert figures["teacher"].steps == 400_000
    assert max(figure.memory_bytes or 0 for figure in figures.values()) < 20e9
    assert figures["bank"].disk_bytes == 8 * 100_000 * 3 * 32 * 32 * 2


@pytest.mark.slow
def test_every_network_of_cifar10_takes_a_step_at_full_size(tmp_path, monkeypatch):
    archive = tmp_path / "cifar-10-python.tar.gz"
    checksum = make_cifar10_archive(archive, per_batch=20)
    monkeypatch.setenv("FLOWCTL_HOME", str(tmp_path / "home"))
    weights = tmp_path / "inception.safetensors"
    save_file(random_weights(), weights)
    result = CliRunner().invoke(
        app,
        [
            "run",
            "nfm-cifar10",
            "--smoke-test",
            "--set",
            f"data.path={archive}",
            "--set",
            f"reference.weights={weights}",
            "--set",
            f"reference.checksum=sha256:{sha256_file(weights)}",
            "--set",
            f"data.checksum={checksum}",
            "--set",
            "compute.device=cpu",
        ],
    )
    assert result.exit_code == 0, result.output
    for stage in build(load("nfm-cifar10")):
        assert stage in result.output
    assert not list((tmp_path / "home").glob("artifacts/*/*")), "a rehearsal leaves nothing behind"
