"""Every stage on latents: networks see latents, and whatever is measured or shown is an image again."""

import json
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data.labels import like_training
from pipeline.data.levels import quantise, to_unit
from pipeline.flow_matching.sampling import starting_noise, student_samples
from pipeline.metrics import Moments, features, frechet_distance
from pipeline.outputs import networks
from pipeline.outputs.images import AUTOENCODER, IMAGES, decoder
from pipeline.outputs.reference import REAL, load_extractor, load_features
from pipeline.recipe.sections import Sweep
from pipeline.runtime.seeds import derive
from pipeline.stages import pairs
from storage.bank import Bank
from storage.imageset import ImageSet
from tests.pipeline.data.autoencoders import make_autoencoder
from tests.pipeline.stages.test_stages import run

# Imported where it is used: that takes seconds.
pytestmark = pytest.mark.skipif(find_spec("diffusers") is None, reason="diffusers is not installed")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    make_autoencoder(folder)
    found = run(
        tmp_path_factory.mktemp("home"), f"data.autoencoder={folder}", "data.flips=true", "evaluation.likelihood=null"
    )
    for file in folder.iterdir():
        file.unlink()  # the artifact is all that is needed from here on
    return found


@pytest.fixture(scope="module")
def untold(tmp_path_factory):
    """Images, not latents, and networks that are not told the classes."""
    alone = [
        "student.coupling=independent",
        *(f"{stage}=null" for stage in ("teacher", "bank", "pairs", "onestep")),
        "evaluation.onestep=[]",
    ]
    return run(tmp_path_factory.mktemp("home"), "data.labels=false", *alone, until="evaluation")


@pytest.mark.slow
def test_networks_are_of_the_latents_shape(made):
    images = ImageSet.open(made["data"].path(IMAGES))
    assert images.shape == (4, 4, 4) and images.originals.shape == (1, 8, 8)
    assert networks.load_network(made["teacher"]).config.shape == images.shape
    assert networks.load_network(made["student"]).config.shape == images.shape
    assert Bank.open(made["pairs"].path(pairs.PAIRS)).facts.shape == images.shape
    assert made["bank"].metrics["rows"] == 2 * made["data"].metrics["train"] == 400


def test_the_reference_is_of_the_images_and_their_classes(made, untold):
    assert made["reference"].metrics["accuracy"] > 0.5
    assert made["reference"].path(REAL).read_bytes() == untold["reference"].path(REAL).read_bytes()


def test_a_score_is_of_decoded_and_quantised_samples(made):
    data = made["data"]
    images, decode = ImageSet.open(data.path(IMAGES)), decoder(data, "cpu")
    extractor = load_extractor(made["reference"], images.originals, torch.device("cpu"))
    real = load_features(made["reference"], "train").moments
    seed, how = derive(0, "evaluation"), Sweep(solver="euler", grid="uniform", nfe=(2,))
    labels, rows = like_training(images, 128, seed), torch.arange(128)
    z = starting_noise(seed, rows, images.shape)
    latents, _ = student_samples(networks.load_network(made["student"]), z, labels, how, 2)
    grey = quantise(decode(latents).numpy(), 17)
    assert grey.shape == (128, 1, 8, 8)
    distance = frechet_distance(real, Moments.of(features(extractor, torch.from_numpy(to_unit(grey, 17)))))
    score = next(s for s in made["evaluation"].metrics["scores"] if s["model"] == "student" and s["nfe"] == 2)
    assert score["value"] == pytest.approx(distance, rel=1e-4)
    assert score["protocol"]["quantised"].startswith("17 levels")
    assert score["protocol"]["autoencoder"] == data.digest(f"{AUTOENCODER}/diffusion_pytorch_model.safetensors")[:12]


def test_bits_of_the_teacher_have_no_grid(made):
    """In nats the same density, less the log of a bin that latents do not have."""
    found = made["teacher"].metrics
    assert "latents" in found["dequantisation"]
    flow = networks.load_network(made["teacher"])
    images = ImageSet.open(made["data"].path(IMAGES))
    x = torch.from_numpy(images.test.images)
    y = x + 0.2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    nats = flow.log_prob(y, torch.from_numpy(images.test.labels)).mean() / x[0].numel()
    assert found["bits_per_dim"] == pytest.approx(-float(nats) / np.log(2), abs=0.05)


def test_pictures_are_of_images(made):
    from pipeline.reporting.pictures import labelled_rows

    images = ImageSet.open(made["data"].path(IMAGES)).originals
    eight = torch.zeros(4, *images.shape)
    expected = labelled_rows([("data", eight), ("teacher", eight)])
    assert Image.open(made["teacher"].path("samples.png")).size == expected.size
    assert json.loads(made["report"].path("report.json").read_text())["recipe"]


def test_images_without_an_autoencoder_pass_as_they_are(untold):
    x = torch.randn(2, 1, 8, 8)
    assert decoder(untold["data"], "cpu")(x) is x
    assert not untold["data"].path(AUTOENCODER).exists()


def test_without_classes_scores_still_use_the_classifier(untold):
    assert networks.load_network(untold["student"]).config.classes == 0
    score = untold["evaluation"].metrics["scores"][0]
    assert score["metric"] == "FD-classifier" and score["protocol"]["labels"] == "none"
    assert "autoencoder" not in score["protocol"]
