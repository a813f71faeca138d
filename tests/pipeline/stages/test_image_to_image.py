"""Super-resolution and data-to-data flow matching through the stages, on hardly any work."""

import json

import pytest
import torch
from PIL import Image
from torch import nn

from pipeline.cost.estimate import estimate
from pipeline.data.conditions import low_resolution
from pipeline.data.examples import Examples, drawn
from pipeline.data.levels import as_stored
from pipeline.engine.dag import build
from pipeline.flow_matching.sampling import starting_images, starting_noise, student_samples
from pipeline.metrics import Moments, features, frechet_distance, psnr, ssim
from pipeline.outputs import networks
from pipeline.outputs.images import IMAGES
from pipeline.outputs.reference import load_extractor, load_features
from pipeline.recipe.load import load
from pipeline.recipe.sections import Sweep
from pipeline.reporting.pictures import labelled_rows
from pipeline.runtime.seeds import derive
from pipeline.stages import pairs
from storage.bank import Bank
from storage.errors import InputError
from storage.imageset import ImageSet
from tests.pipeline.data.sources.formats import coloured, encoded, make_folder
from tests.pipeline.stages.test_stages import run
from tests.tiny import TINY

LEFT_OUT = ("name=", "teacher.", "bank.", "pairs.", "onestep.", "evaluation.onestep")
SMALL = [override for override in TINY if not override.startswith(LEFT_OUT)]
PAIRS = [
    "pairs={count: 150, nfe: 2, shard: 64}",
    "onestep={mode: distil, training: {images: 512, batch: 64, lr: 1.0e-3, ema: 128}}",
    "evaluation.onestep=[{grid: uniform, nfe: [1]}]",
]


def small(home, recipe, *overrides, until="report"):
    return run(home, *SMALL, *overrides, recipe=recipe, until=until)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Apart from that of other tests: stand-ins of networks are evaluated here."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def sharp(home):
    return small(home, "sr-digits")


@pytest.fixture(scope="module")
def carried(home):
    return small(home, "data-to-data", "data.limit=100", "source.limit=90", *PAIRS)


def held_out(made, role="data") -> Examples:
    found = ImageSet.open(made[role].path(IMAGES))
    return Examples.of(found, "test")


def scores(made, metric, model, solver=None):
    return [
        score["value"]
        for score in made["evaluation"].metrics["scores"]
        if (score["metric"], score["model"]) == (metric, model) and solver in (None, score["solver"])
    ]


class Stub(nn.Module):
    """Stands for a trained network: a velocity in closed form."""

    def __init__(self, velocity):
        super().__init__()
        self.velocity = velocity

    def forward(self, x, t, labels=None, condition=None):
        return self.velocity(x, t.view(-1, 1, 1, 1), condition)


# -- super-resolution --------------------------------------------------------------------------------------------


def test_the_network_takes_the_small_image_beside_the_noisy_one(sharp):
    network = networks.load_network(sharp["student"])
    assert network.config.condition_channels == 1
    assert (
        sum(parameter.numel() for parameter in network.parameters())
        == estimate(build(load("sr-digits", SMALL))["student"]).parameters
    )
    test, rows, x = held_out(sharp), torch.arange(8), torch.zeros(8, 1, 8, 8)
    condition = low_resolution(test.pixels(rows), 2, 17)
    told = network(x, torch.ones(8), test.classes(rows), condition)
    assert not torch.equal(told, network(x, torch.ones(8), test.classes(rows), condition.flip(0)))


def test_every_way_of_sampling_is_held_against_the_held_out(sharp):
    found = sharp["evaluation"].metrics["scores"]
    ways = [
        ("enlarged", "repeated pixels", 0),
        ("enlarged", "bicubic", 0),
        ("student", "euler", 1),
        ("student", "euler", 2),
        ("student", "heun", 3),
    ]
    assert [(s["model"], s["solver"], s["nfe"], s["metric"]) for s in found] == [
        (*way, metric) for way in ways for metric in ("FD-classifier", "PSNR", "SSIM")
    ]
    for score in found:
        assert score["protocol"]["condition"] == "low-resolution 2 of the test split, 200 images in turn"
        assert score["protocol"]["labels"] == "those of the test images"
        assert score["protocol"]["metric"] == score["metric"]
    assert {s["protocol"].get("window") for s in found if s["metric"] == "SSIM"} == {"7x7 Gaussian, sigma 1.5"}


def test_figures_are_those_of_the_formulas_on_what_files_would_hold(sharp):
    test = held_out(sharp)
    x = test.pixels(drawn(len(test), len(test))[:128])  # whom the evaluation's 128 samples should be
    small_ones = low_resolution(x, 2, 17)
    assert scores(sharp, "PSNR", "enlarged", "repeated pixels") == pytest.approx([float(psnr(small_ones, x).mean())])
    assert scores(sharp, "SSIM", "enlarged", "repeated pixels") == pytest.approx([float(ssim(small_ones, x).mean())])
    smooth = nn.functional.interpolate(small_ones[:, :, ::2, ::2], scale_factor=2, mode="bicubic", antialias=True)
    smooth = as_stored(smooth, 17)
    assert scores(sharp, "PSNR", "enlarged", "bicubic") == pytest.approx([float(psnr(smooth, x).mean())])


def test_a_network_that_copies_its_condition_scores_as_the_enlarged_images(home, monkeypatch):
    """v = (x_t - c) / t leads straight to c, whatever the solver that ends with Euler's step, noise and class."""
    copies = Stub(lambda x, t, condition: (x - condition) / t)
    monkeypatch.setattr(networks, "load_network", lambda *how: copies)
    sweep = "evaluation.student=[{grid: uniform, nfe: [1, 3]}, {grid: uniform, nfe: [4], guidance: 2.0}]"
    made = small(home, "sr-digits", sweep, until="evaluation")
    for metric in ("PSNR", "SSIM", "FD-classifier"):
        same = scores(made, metric, "enlarged", "repeated pixels")
        assert scores(made, metric, "student") == pytest.approx(same * 3, rel=1e-5)


def test_the_picture_shows_what_should_be_and_what_was_there(sharp):
    rows = torch.zeros(20, 1, 8, 8)
    names = [
        "data, held out",
        "enlarged, repeated pixels",
        "enlarged, bicubic",
        "student, 1 call",
        "student, 2 calls",
        "student, 3 calls",
    ]
    expected = labelled_rows([(name, rows) for name in names])
    assert Image.open(sharp["evaluation"].path("samples.png")).size == expected.size


def test_coloured_and_mirrored_images(tmp_path):
    folder = make_folder(
        tmp_path / "photos", {f"{kind}/{i}.png": encoded(coloured(i)) for kind in ("cat", "dog") for i in range(20)}
    )
    made = small(
        tmp_path / "home",
        "sr-digits",
        "data.source=images",
        f"data.path={folder}",
        "data.flips=true",
        "data.limit=null",
        "reference.extractor=pixels",
        "student.condition.factor=4",
        until="evaluation",
    )
    assert networks.load_network(made["student"]).config.condition_channels == 3
    assert "low-resolution 4" in made["evaluation"].metrics["scores"][0]["protocol"]["condition"]


def test_images_that_the_factor_does_not_divide_are_refused_before_training(home):
    with pytest.raises(InputError, match="factor"):
        small(home, "sr-digits", "student.condition.factor=3", until="student")


@pytest.mark.slow
def test_a_sixth_of_the_shipped_training_beats_interpolation_by_far(tmp_path):
    made = run(
        tmp_path,
        "student.training.images=25600",
        "student.training.ema=2000",
        "compute.threads=1",
        "compute.device=cpu",
        "evaluation.samples=359",
        "evaluation.student=[{grid: uniform, nfe: [2]}]",
        recipe="sr-digits",
        until="evaluation",
    )
    assert scores(made, "PSNR", "student")[0] > max(scores(made, "PSNR", "enlarged")) + 3
    assert scores(made, "SSIM", "student")[0] > max(scores(made, "SSIM", "enlarged")) + 0.1
    assert scores(made, "FD-classifier", "student")[0] < 0.2 * min(scores(made, "FD-classifier", "enlarged"))


def test_students_without_a_condition_are_those_of_before():
    plain = build(load("fm-digits"))["student"]
    assert build(load("fm-digits", ["student.condition=null"]))["student"].fingerprint == plain.fingerprint
    assert build(load("sr-digits"))["student"].fingerprint != plain.fingerprint
    assert list(plain.inputs) == ["data"]


# -- data to data ------------------------------------------------------------------------------------------------


def test_the_source_is_an_artifact_of_its_own_that_the_right_stages_read(carried):
    assert carried["source"].metrics["classes"] == ["0", "1", "2", "3", "4"]
    assert carried["data"].metrics["classes"] is None
    readers = [role for role, artifact in carried.items() if "source" in artifact.inputs]
    assert readers == ["student", "pairs", "evaluation", "report"]


def test_evaluation_starts_from_the_test_images_of_the_source(home, carried, monkeypatch):
    """A velocity of zero leaves them as they are, so that the score is that of the images themselves."""
    monkeypatch.setattr(networks, "load_network", lambda *how: Stub(lambda x, t, condition: torch.zeros_like(x)))
    made = small(
        home,
        "data-to-data",
        "data.limit=100",
        "source.limit=90",
        "seed=3",
        "evaluation.student=[{nfe: [1, 2]}]",
        until="evaluation",
    )
    source = held_out(made, "source")
    assert len(source) == 90
    order = torch.randperm(90, generator=torch.Generator().manual_seed(derive(derive(3, "evaluation"), "source")))
    grey = source.pixels(order[torch.arange(128) % 90])
    images = ImageSet.open(made["data"].path(IMAGES)).originals
    extractor = load_extractor(made["reference"], images, torch.device("cpu"))
    real = load_features(made["reference"], "train").moments
    distance = frechet_distance(real, Moments.of(features(extractor, grey)))
    assert scores(made, "FD-classifier", "student") == pytest.approx([distance] * 2, rel=1e-4)
    protocol = made["evaluation"].metrics["scores"][0]["protocol"]
    assert protocol["start"] == f"digits {made['source'].fingerprint[:12]}, test split, 90 images in turn"
    assert any("90 images" in text for text in made["evaluation"].metrics["warnings"])
    assert carried["evaluation"].metrics["protocol"] != made["evaluation"].metrics["protocol"]


def test_pairs_go_from_training_images_of_the_source_to_where_the_student_leads(carried):
    bank = Bank.open(carried["pairs"].path(pairs.PAIRS)).load()
    found = ImageSet.open(carried["source"].path(IMAGES))
    source = Examples(found.train.images, None, found.levels)
    z, x = (torch.from_numpy(bank[name][0]) for name in ("z", "x"))
    assert len(z) == 150 and torch.equal(z, starting_images(derive(0, "pairs"), torch.arange(150), source))
    again, _ = student_samples(networks.load_network(carried["student"]), z, None, Sweep(nfe=(2,)), 2)
    assert (again - x).abs().max() < 1e-5
    assert len(scores(carried, "FD-classifier", "onestep")) == 1


def test_transport_carries_less_far_than_independent_draws(home, carried):
    apart = small(
        home, "data-to-data", "data.limit=100", "source.limit=90", "student.coupling=independent", until="student"
    )
    assert 0 < carried["student"].metrics["transport_cost"] < 0.9 * apart["student"].metrics["transport_cost"]


def test_sources_of_another_shape_are_refused(home, tmp_path):
    folder = make_folder(tmp_path / "photos", {f"{i}.png": encoded(coloured(i)) for i in range(10)})
    with pytest.raises(InputError, match="source"):
        small(home, "data-to-data", "data.limit=100", f"source={{source: images, path: {folder}}}", until="student")


def test_the_report_makes_the_recipe_whole_again(carried):
    told = json.loads(carried["report"].path("report.json").read_text())
    assert "source" in [stage["stage"] for stage in told["stages"]]


# -- the best average --------------------------------------------------------------------------------------------

QUALITY = "student.quality={points: 2, samples: 300, solver: euler, nfe: 2}"
CHANGES = {"sr-digits": [], "data-to-data": ["data.limit=100", "source.limit=90"]}


@pytest.mark.parametrize("recipe", CHANGES)
def test_the_best_average_is_chosen_on_training_inputs_and_not_on_those_of_the_evaluation(home, recipe):
    made = small(home, recipe, *CHANGES[recipe], QUALITY, until="student")
    quality, images = made["student"].metrics["quality"], ImageSet.open(made["data"].path(IMAGES))
    network = networks.load_network(made["student"], average="best")
    seed = derive(load(recipe).sections()["student"].seed, "student", "quality")
    rows, labels, condition = torch.arange(300), None, None
    if recipe == "sr-digits":
        train = Examples.of(images)
        asked = drawn(len(train), len(train))[rows % len(train)]
        labels, condition = train.classes(asked), low_resolution(train.pixels(asked), 2, images.levels)
        z = starting_noise(seed, rows, images.shape)
    else:
        z = starting_images(seed, rows, Examples.of(ImageSet.open(made["source"].path(IMAGES))))
    x, _ = student_samples(network, z, labels, Sweep(solver="euler", nfe=(2,)), 2, condition=condition)
    extractor = load_extractor(made["reference"], images.originals, torch.device("cpu"))
    found = Moments.of(features(extractor, as_stored(x, images.levels)))
    assert quality["value"] == pytest.approx(frechet_distance(load_features(made["reference"], "train").moments, found))
    assert "training inputs" in quality["chosen_by"]


def test_best_averages_that_were_chosen_on_test_inputs_are_made_again_and_no_others():
    versions = {
        recipe: [build(load(recipe, settings))["student"].stage.version for settings in ([], [QUALITY])]
        for recipe in ("fm-digits", *CHANGES)
    }
    assert versions == {"fm-digits": [2, 2], "sr-digits": [2, 3], "data-to-data": [2, 3]}


# -- recipes -----------------------------------------------------------------------------------------------------

NFM = ["student.condition={factor: 2}"]


@pytest.mark.parametrize(
    ("recipe", "overrides", "words"),
    [
        ("sr-digits", ["student.coupling=ot"], "set student.coupling to independent"),
        ("nfm-digits", NFM, "set student.coupling to independent"),
        ("sr-digits", PAIRS, "pairs hold no conditions"),
        ("sr-digits", ["data.autoencoder=somewhere"], "not latents"),
        ("sr-digits", ["student.condition.factor=1"], "student.condition.factor"),
        ("sr-digits", ["student.condition.kind=blurred"], "student.condition.kind"),
        ("sr-digits", ["evaluation.likelihood={}"], "evaluation.likelihood"),
        ("sr-digits", ["source={source: digits}"], "leave source or student.condition out"),
        ("data-to-data", ["student.coupling=entropic"], "independent or ot"),
        ("data-to-data", ["student.coupling=loom"], "independent or ot"),
        ("nfm-digits", ["source={source: digits}", "evaluation.likelihood=null"], "independent or ot"),
        ("data-to-data", ["student.coupling=independent", "student.path={kind: vp}"], "set student.path to linear"),
        ("data-to-data", ["source.autoencoder=somewhere"], "leave autoencoder out"),
        ("data-to-data", ["source.clases=[1]"], "Did you mean 'classes'"),
        ("data-to-data", ["evaluation.likelihood={}"], "evaluation.likelihood"),
    ],
)
def test_what_cannot_go_together_is_refused_before_any_work(recipe, overrides, words):
    with pytest.raises(InputError, match=words):
        load(recipe, overrides)


@pytest.mark.parametrize("data", ["digits", "cifar10"])
def test_super_resolution_differs_from_flow_matching_in_the_condition_alone(data):
    plain, told = load(f"fm-{data}"), load(f"sr-{data}")
    assert told.sections()["student"].model_copy(update={"condition": None}) == plain.sections()["student"]
    assert (told.data, told.reference, told.seed) == (plain.data, plain.reference, plain.seed)
    cold = tuple(sweep.model_copy(update={"temperature": 1.0}) for sweep in plain.evaluation.student)
    assert told.evaluation.student == cold  # images of a condition start from N(0, I)
