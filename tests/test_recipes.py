"""What the shipped recipes promise to one another, and that the large one is sound before days are spent on it."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from flows.cli.app import app
from pipeline.cost.estimate import estimate
from pipeline.cost.image_shape import image_shape
from pipeline.engine.dag import build
from pipeline.outputs import networks
from pipeline.recipe.load import load, shipped
from storage.atomic import sha256_file
from tests.models.inception_weights import random_weights
from tests.pipeline.data.sources.formats import make_cifar10_archive

COMPARED = [(name, data) for data in ("digits", "cifar10") for name in ("fm", "ot", "loom", "sd")]


@pytest.mark.parametrize(("name", "data"), [*COMPARED, ("fm", "imagenet64"), ("sd", "imagenet64")])
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


def parameters(architecture) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in networks.build(architecture, 0).parameters())


def test_imagenet_is_the_scale_of_the_papers():
    """TarFlow 4-1024-8-8-0.05 for 512 Mi images, SiT-XL/4 and XL/2 for 256 Mi, and the bank of 8 draws."""
    recipe = load("nfm-imagenet64")
    teacher, student = recipe.teacher, recipe.student
    assert (teacher.patch, teacher.width, teacher.blocks, teacher.layers, teacher.noise_std) == (4, 1024, 8, 8, 0.05)
    assert (teacher.training.images, student.training.images) == (512 * 2**20, 256 * 2**20)
    assert (student.time.kind, student.time.mean, student.time.std) == ("logit-normal", -0.2, 1.0)
    nodes = build(recipe, recorded=lambda *_: "sha256:0")  # the images are not here
    rows = 2 * 1_281_167
    assert estimate(nodes["bank"]).disk_bytes == 8 * rows * 3 * 64 * 64 * 2
    shape = image_shape(recipe.data, None)
    # SiT-XL/2 has 675 M parameters (arXiv 2401.08740, table 1); TarFlow 4-1024-8-8 820 M.
    assert parameters(networks.student_architecture(student, shape)) == pytest.approx(675e6, rel=0.002)
    assert parameters(networks.teacher_architecture(teacher, shape)) == pytest.approx(820e6, rel=0.005)
    assert recipe.data.classes is None and load("nfm-imagenet256").student.network.patch == 2


def tiny_imagenet(folder: Path, classes: int, each: int) -> Path:
    """Generated images of 64x64 in the layout of tiny-imagenet-200."""
    random = np.random.default_rng(0)
    names = [f"n{number:08d}" for number in range(classes)]
    lines = []

    def write(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(256, size=(64, 64, 3), dtype=np.uint8)).save(path)

    for name in names:
        for number in range(each):
            write(folder / "train" / name / "images" / f"{name}_{number}.JPEG")
        write(folder / "val" / "images" / f"val_{name}.JPEG")
        lines.append(f"val_{name}.JPEG\t{name}\t0\t0\t62\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    return folder


NARROW = ["teacher.width=64", "teacher.blocks=2", "teacher.layers=1", "student.network.width=48",
          "student.network.depth=2", "student.network.heads=4"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [NARROW, []], ids=["narrow", "full size"])
def test_every_stage_of_imagenet64_runs_on_200_classes(tmp_path, monkeypatch, sizes):
    """At full size the teacher's weights, gradients, moments and average alone take 16 GB."""
    if not sizes and os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") < 30e9:
        pytest.skip("needs 30 GB of memory")
    monkeypatch.setenv("FLOWCTL_HOME", str(tmp_path / "home"))
    weights = tmp_path / "inception.safetensors"
    save_file(random_weights(), weights)
    overrides = [
        *sizes,
        f"data.path={tiny_imagenet(tmp_path / 'tiny-imagenet-200', 200, 2)}",
        "data.test_list=val/val_annotations.txt",
        f"reference.weights={weights}",
        f"reference.checksum=sha256:{sha256_file(weights)}",
        "compute.device=cpu",
    ]
    sets = [word for override in overrides for word in ("--set", override)]
    result = CliRunner().invoke(app, ["run", "nfm-imagenet64", "--smoke-test", *sets])
    assert result.exit_code == 0, result.output
    for stage in ("data", "reference", "teacher", "bank", "student", "evaluation", "report"):
        assert stage in result.output


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
