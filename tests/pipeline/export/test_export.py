"""A finished recipe exported for real: loaded where the pipeline cannot be imported, it makes the same images."""

import ast
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from flows.views.sample_request import SampleRequest
from flows.views.samples import draw
from models.load import load as load_exported
from models.tarflow import schedule_from_dict
from pipeline.export import Subject, export
from pipeline.export._onnx import Checked
from pipeline.flow_matching.sampling import class_labels, starting_noise, student_samples, teacher_samples
from pipeline.outputs import networks
from pipeline.outputs.images import decoder
from pipeline.recipe.load import load
from pipeline.recipe.sections import Sweep, Teacher
from pipeline.runtime.seeds import derive
from storage.atomic import sha256_file
from storage.errors import DamageError, InputError, UsageError
from tests.pipeline.data.autoencoders import make_autoencoder
from tests.pipeline.stages.test_stages import run
from tests.shared import figures  # noqa: F401 - a fixture
from tests.tiny import TINY

ROOT = Path(__file__).parents[3]
OVERRIDES = [
    "reference.extractor=pixels",
    "evaluation.likelihood=null",
    "student.training.averages=[{width: 0.1}]",
    "evaluation.student=[{solver: euler, grid: uniform, nfe: [1, 2]}, {solver: heun, nfe: [3]}, "
    "{solver: euler, grid: uniform, nfe: [1], ema: power-0.1}]",
]
STUDENT_ALONE = [
    "student.coupling=independent",
    "evaluation.onestep=[]",
    "evaluation.likelihood=null",
    *(f"{stage}=null" for stage in ("teacher", "bank", "pairs", "onestep")),
]
# What an export must do without; its script may import torch, safetensors and our networks.
FORBIDDEN = ("prefect", "zarr", "numcodecs", "typer", "storage", "pipeline", "flows")
ALONE = f"""
import sys
class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {FORBIDDEN!r}:
            raise ImportError("forbidden: " + name)
sys.meta_path.insert(0, Forbid())
"""
THEN = """
from safetensors.torch import load_file, save_file
given = load_file("given.safetensors")
assert images.shape == (16, *sampler.facts["images"]["shape"]) and images.isfinite().all()
made = {str(nfe): sampler(given["z"], given["labels"], nfe=nfe) for nfe in NFE}
save_file(made | {"grey": sampler.quantise(next(iter(made.values())))}, "made.safetensors")
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def made(home):
    return run(home, *OVERRIDES, until="evaluation")


@pytest.fixture(scope="module")
def recipe():
    return load("nfm-digits", [*TINY, *OVERRIDES])


@pytest.fixture
def subject(made, recipe):
    def of(model="student", average=None, without=()):
        sweeps = () if model == "teacher" else getattr(recipe.evaluation, model)
        there = {role: artifact for role, artifact in made.items() if role not in without}
        return Subject("tiny", model, average, there, sweeps)

    return of


def given(network, folder):
    rows = torch.arange(32)
    z, labels = starting_noise(derive(0, "sample"), rows, network.config.shape), class_labels(rows, 10)
    save_file({"z": z, "labels": labels}, folder / "given.safetensors")
    return rows, z, labels


def alone(out, nfe, lines=5, more=""):
    """What the card's script makes of the given noise, in a process that can import nothing of the pipeline."""
    (script,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    assert len([line for line in script.splitlines() if line.strip()]) == lines
    code = ALONE + script + THEN.replace("NFE", repr(nfe)) + more
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=out.parent, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return load_file(out.parent / "made.safetensors")


def test_the_script_alone_makes_the_images_of_flowctl_sample(subject, home, recipe, tmp_path, monkeypatch):
    out = export(subject(), tmp_path / "student")
    network = networks.load_network(subject().artifact)
    _, z, labels = given(network, tmp_path)
    found = alone(out, [2, 1, 3])
    for nfe, how in (
        (1, Sweep(grid="uniform", nfe=(1,))),
        (2, Sweep(grid="uniform", nfe=(2,))),
        (3, Sweep(solver="heun", nfe=(3,))),
    ):
        expected, calls = student_samples(network, z, labels, how, nfe)
        assert calls == nfe
        torch.testing.assert_close(found[str(nfe)], expected, rtol=0, atol=1e-5)
    monkeypatch.setenv("FLOWCTL_HOME", str(home))
    images, classes, levels, _ = draw(recipe, SampleRequest("student", 2, "euler", None, None, 0, 32))
    assert levels == 17 and np.array_equal(classes, labels.numpy())
    assert np.array_equal(found["grey"].numpy(), images)


def test_the_documented_script_is_that_of_the_card(subject, tmp_path):
    out = export(subject("onestep"), tmp_path / "digits")
    (script,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    assert script in (ROOT / "docs" / "export.md").read_text()


def test_the_script_names_any_folder(subject, tmp_path):
    out = export(subject("onestep"), tmp_path / 'dig"its')
    (script,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    assert 'dig"its' in {node.value for node in ast.walk(ast.parse(script)) if isinstance(node, ast.Constant)}


@pytest.mark.slow
def test_the_documented_onnx_makes_the_images_of_the_export(subject, tmp_path, monkeypatch):
    pytest.importorskip("onnxscript"), pytest.importorskip("onnxruntime")
    out = export(subject(), tmp_path / "digits", onnx=True)
    facts = json.loads((out / "sampler.json").read_text())
    facts["recommended"] = 1
    facts["ways"][1]["temperature"] = 1.25
    assert facts["ways"][1]["solver"] == "euler" and facts["ways"][1]["nfe"] == 2
    (out / "sampler.json").write_text(json.dumps(facts))
    scripts = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(), re.DOTALL)
    (script,) = [script for script in scripts if "onnxruntime" in script]
    monkeypatch.chdir(tmp_path)
    made: dict = {}
    exec(script, made)
    z = np.random.default_rng(0).standard_normal((16, *facts["shape"]), dtype=np.float32)
    expected = load_exported(out)(torch.from_numpy(z), torch.from_numpy(made["labels"]))
    np.testing.assert_allclose(made["x"], expected.numpy(), rtol=0, atol=1e-4)


def test_a_teacher_decodes_and_denoises_as_the_pipeline_does(subject, tmp_path):
    sampler = load_exported(export(subject("teacher"), tmp_path / "teacher"))
    artifact = subject("teacher").artifact
    flow = networks.load_network(artifact)
    rows, z, labels = given(flow, tmp_path)
    config = Teacher.model_validate(artifact.config)
    schedules = [schedule_from_dict(fields) for fields in artifact.metrics["schedule"]]
    expected = teacher_samples(flow, rows, labels, derive(0, "sample"), config, schedules)
    torch.testing.assert_close(sampler(z, labels), expected, rtol=0, atol=1e-5)
    assert sampler.facts["sigma_f"] == subject().artifacts["bank"].metrics["sigma_f"]
    assert sampler.facts["denoise"] == sampler.facts["noise"] == 0.2


@pytest.mark.slow
def test_latents_come_with_the_decoder_of_their_own(tmp_path):
    pytest.importorskip("diffusers")
    make_autoencoder(tmp_path / "vae")
    latent = run(tmp_path / "home", f"data.autoencoder={tmp_path / 'vae'}", *STUDENT_ALONE, until="student")
    written = []
    out = export(Subject("tiny", "student", None, latent, [Sweep(nfe=(2,))]), tmp_path / "out", writing=written.append)
    assert sorted(written) == sorted(file.name for file in out.iterdir())
    network = networks.load_network(latent["student"])
    _, z, labels = given(network, tmp_path)
    script_then = (
        "\nmade = {'x': vae.decode(sampler(given['z'], given['labels']) / scale + shift).sample.detach()}"
        "\nsave_file(made, 'made.safetensors')"
    )
    expected = decoder(latent["data"], "cpu")(student_samples(network, z, labels, Sweep(nfe=(2,)), 2)[0])
    found = alone(out, [2], lines=9, more=script_then)["x"]
    assert found.shape == (32, 1, 8, 8)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_folder_says_what_it_is(subject, tmp_path):
    out = export(subject(), tmp_path / "student")
    assert sorted(file.name for file in out.iterdir()) == [
        "README.md",
        "network.json",
        "sampler.json",
        "samples.png",
        "weights.safetensors",
    ]
    facts = json.loads((out / "sampler.json").read_text())
    assert facts["shape"] == [1, 8, 8] and facts["classes"] == list("0123456789")
    assert facts["images"] | {"rounding": ""} == {"shape": [1, 8, 8], "range": [-1, 1], "levels": 17, "rounding": ""}
    assert (facts["path"], facts["average"]) == ({"kind": "linear"}, "half-life-128")
    assert [(way["solver"], way["grid"], way["nfe"]) for way in facts["ways"]] == [
        ("euler", "uniform", 1),
        ("euler", "uniform", 2),
        ("heun", "uniform", 3),
    ]
    artifact = subject().artifact
    assert sha256_file(out / "weights.safetensors") == artifact.digest("weights.safetensors")
    assert Image.open(out / "samples.png").size > (100, 100)
    card = (out / "README.md").read_text()
    for said in (
        artifact.fingerprint,
        "18,873 parameters",
        "| student | 1,024 | 16 |",
        "euler, uniform grid",
        "real images: 200",
        "generated images: 128",
        "17 levels, rounded half up",
        "torch " + artifact.provenance.packages["torch"],
        "## Licence",
        sha256_file(out / "weights.safetensors"),
    ):
        assert said in card, said
    value = next(
        s["value"]
        for s in subject().artifacts["evaluation"].metrics["scores"]
        if (s["model"], s["nfe"], s["protocol"]["ema"]) == ("student", 2, "half-life-128")
    )
    assert facts["ways"][1]["score"] == value


def test_each_average_has_its_own_weights_and_scores(subject, tmp_path):
    first, other = (export(subject("student", average), tmp_path / str(average)) for average in (None, "power-0.1"))
    assert (first / "weights.safetensors").read_bytes() != (other / "weights.safetensors").read_bytes()
    facts = json.loads((other / "sampler.json").read_text())
    assert facts["average"] == "power-0.1" and [way["nfe"] for way in facts["ways"]] == [1]
    unmeasured = export(subject("onestep", without=("evaluation",)), tmp_path / "onestep")
    assert "FD-classifier" not in (unmeasured / "README.md").read_text()
    facts = json.loads((unmeasured / "sampler.json").read_text())
    assert [(way["nfe"], way["score"]) for way in facts["ways"]] == [(1, None)]
    with pytest.raises(InputError):
        export(subject("student", "power-0.2"), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_nothing_but_an_export_is_replaced(subject, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    export(subject("onestep"), out)
    before = (out / "weights.safetensors").read_bytes()
    with pytest.raises(UsageError):
        export(subject(), out)
    export(subject(), out, force=True)
    assert (out / "weights.safetensors").read_bytes() != before
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError) as raised:
        export(subject(), out, force=True)
    assert "thesis.tex" in raised.value.value
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError):
        export(subject(), tmp_path / "file", force=True)
    here = tmp_path / "out" / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for place in (Path(), Path(".."), here):
        with pytest.raises(UsageError):
            export(subject(), place, force=True)
    assert Path.cwd() == here
    here.rmdir()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "out"]


def test_onnx_is_one_more_file_with_its_check_in_the_card(subject, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("pipeline.export._write.require_onnx", lambda: None)

    def write(network, path):
        seen.append(network)
        path.write_bytes(b"onnx")
        return Checked(3e-7, 20)

    monkeypatch.setattr("pipeline.export._write.write_onnx", write)
    out = export(subject("onestep"), tmp_path / "out", onnx=True)
    assert (out / "network.onnx").read_bytes() == b"onnx" and seen[0].config.classes == 10
    assert "ONNX opset 20" in (out / "README.md").read_text() and "3.0e-07" in (out / "README.md").read_text()


def test_what_fails_leaves_nothing(subject, tmp_path, monkeypatch):
    with pytest.raises(UsageError):
        export(subject("teacher"), tmp_path / "teacher", onnx=True)
    monkeypatch.setattr("pipeline.export._write.sha256_file", lambda path: "0" * 64)
    with pytest.raises(DamageError):
        export(subject(), tmp_path / "student")
    assert not list(tmp_path.iterdir())


def test_networks_that_want_images_are_refused(subject, tmp_path):
    asked = replace(subject(), artifacts={**subject().artifacts, "source": subject().artifacts["data"]})
    with pytest.raises(UsageError):
        export(asked, tmp_path / "out")
