"""Quality while it trains, of real stages: curves are the evaluation's numbers, and the best average is used."""

import json

import pytest
import torch

from pipeline.data.examples import Examples
from pipeline.data.labels import like_training
from pipeline.data.levels import as_stored
from pipeline.flow_matching.sampling import starting_noise, student_samples
from pipeline.metrics import Moments, features, frechet_distance
from pipeline.outputs import networks
from pipeline.outputs.images import IMAGES
from pipeline.outputs.reference import load_extractor, load_features
from pipeline.recipe.sections import Sweep
from pipeline.reporting.page.page import view
from pipeline.runtime.job import Job, Progress
from pipeline.runtime.seeds import derive
from pipeline.stages.teacher import bits_of
from pipeline.training import _fit
from storage.imageset import ImageSet
from tests.pipeline.stages.test_stages import load, run
from tests.tiny import TINY

CPU = torch.device("cpu")
OVERRIDES = (
    "student.quality={points: 4, samples: 100, solver: euler, nfe: 2}",
    "student.training.averages=[{width: 0.1}]",
    "teacher.quality={points: 4, use: best}",
    "evaluation.student=[{solver: euler, grid: uniform, nfe: [2], ema: [null, power-0.1, best]}]",
    "pairs=null",
    "onestep=null",
    "evaluation.onestep=[]",
)


@pytest.fixture(scope="module")
def made(home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_fit, "PREVIEW_POINTS", 8)
        return run(home, *OVERRIDES)


def history(artifact, key):
    """The curve of a key: images seen to values."""
    lines = map(json.loads, artifact.path("history.jsonl").read_text().splitlines())
    return {line["images"]: line[key] for line in lines if key in line}


def distances(made, network):
    """To the training and the held-out images, computed here step by step."""
    images = ImageSet.open(made["data"].path(IMAGES))
    extractor = load_extractor(made["reference"], images, CPU)
    real = load_features(made["reference"], "train").moments
    seed = derive(load("nfm-digits", TINY).sections()["student"].seed, "student", "quality")
    rows, how = torch.arange(100), Sweep(solver="euler", nfe=(2,))
    labels = like_training(images, 100, seed)
    samples, _ = student_samples(network, starting_noise(seed, rows, images.shape), labels, how, 2)
    found = Moments.of(features(extractor, as_stored(samples, images.levels)))
    return [frechet_distance(side, found) for side in (real, load_features(made["reference"], "test").moments)]


@pytest.mark.parametrize(("average", "key"), [(None, "half-life-128"), ("power-0.1", "power-0.1")])
def test_the_end_of_the_curve_is_the_distance_of_the_artifacts_network(made, average, key):
    network = networks.load_network(made["student"], average=average)
    ends = [history(made["student"], f"{score}/{key}")[1024] for score in ("fd", "fd_held_out")]
    assert ends == pytest.approx(distances(made, network), rel=1e-9)


def test_the_best_average_is_the_least_of_the_curve_and_evaluated_as_such(made):
    quality = made["student"].metrics["quality"]
    curves = {name: history(made["student"], f"fd/{name}") for name in ("half-life-128", "power-0.1")}
    assert all(list(curve) == [256, 512, 768, 1024] for curve in curves.values())
    assert quality["value"] == min(value for curve in curves.values() for value in curve.values())
    assert quality["value"] == curves[quality["average"]][quality["images"]]
    assert quality["value"] == pytest.approx(distances(made, networks.load_network(made["student"], average="best"))[0])
    scores = {score["protocol"]["ema"]: score for score in made["evaluation"].metrics["scores"][1:]}
    assert list(scores) == ["half-life-128", "power-0.1", quality["chosen_by"]]
    assert all(part in quality["chosen_by"] for part in ("4 points × 2 averages", "100 samples", "training images"))


def test_the_teacher_is_used_with_its_best_weights(made, tmp_path, monkeypatch):
    measured = []

    def worse_each_time(*arguments):
        measured.append(bits_of(*arguments))
        return measured[-1] + len(measured)

    monkeypatch.setattr("pipeline.stages.teacher.bits_of", worse_each_time)
    teacher = run(tmp_path, OVERRIDES[2], until="teacher")["teacher"]
    curve, quality = history(teacher, "held_out_bits/half-life-128"), teacher.metrics["quality"]
    assert list(curve) == [256, 512, 768, 1024] and (quality["images"], quality["value"]) == (256, curve[256])
    settings, images = load("nfm-digits", [*TINY, OVERRIDES[2]]), ImageSet.open(made["data"].path(IMAGES))
    config, progress = settings.sections()["teacher"], Progress("teacher", tmp_path, silent=True)
    job = Job("teacher", config, {}, tmp_path, settings.compute, progress)
    bits = bits_of(networks.load_flow(teacher), Examples.of(images, "test"), job, CPU)
    assert bits == measured[0] and bits not in measured[1:4]


def test_protocols_state_how_a_teacher_was_chosen(made):
    teacher = made["teacher"].metrics["quality"]
    assert made["evaluation"].metrics["scores"][0]["protocol"]["ema"] == teacher["chosen_by"]
    assert "4 points" in teacher["chosen_by"] and "held-out" in teacher["chosen_by"]


def test_the_report_draws_the_curves_with_their_units_and_the_strip(made):
    page = view({role: artifact for role, artifact in made.items() if role != "report"})
    [student] = page["students"]
    labels = [(chart.x_label, chart.y_label, len(chart.curves)) for chart, _ in student.charts]
    assert labels == [("images seen", "training loss", 2), ("images seen", "FD-classifier (lower is better)", 4)]
    bits = page["teacher"].charts[1][0]
    assert (bits.y_label, len(bits.curves[0].marks)) == ("bits per dimension", 4)
    assert [shot.caption for shot in student.strip] == ["128", "256", "384", "512", "640", "768", "896", "1,024"]
