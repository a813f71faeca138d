"""Times of stages: amounts over rates, rates of the exact work alone, and what is left of a resumed stage."""

from dataclasses import replace

import pytest
import torch

from pipeline.cost.estimate import estimate
from pipeline.cost.flops import counted
from pipeline.cost.forecast import REST, Forecast, left, measured_share
from pipeline.cost.image_shape import image_shape
from pipeline.cost.part import Part
from pipeline.cost.parts import parts
from pipeline.cost.speeds import Speed
from pipeline.cost.work import DOPRI5_CALLS, extractor_work, forward_work, pictures_work
from pipeline.engine.dag import build, students_among
from pipeline.engine.plan import plan
from pipeline.metrics.neighbours import STORED_SAMPLES
from pipeline.outputs.networks import student_architecture, teacher_architecture
from pipeline.recipe.load import load, shipped
from pipeline.runtime.job import Saved
from pipeline.runtime.timings import Timings
from storage.atomic import write_json
from storage.store import Store
from tests.pipeline.data.autoencoders import make_autoencoder

SPEED = Speed(full=1e10, half=1e10, bandwidth=1e10, start=1e-6)
FAST = Speed(full=2e10, half=2e10, bandwidth=2e10, start=5e-7)
SMALL = [
    *("teacher.blocks=2", "teacher.layers=1", "teacher.width=32", "student.network.base=16"),
    *("compute.device=cpu", "compute.threads=1"),
]


def recipe(*overrides):
    return load("nfm-digits", [*SMALL, *overrides])


def forecast(home, *overrides, speed=SPEED):
    made = recipe(*overrides)
    return Forecast(made.compute, home, speed=speed), build(made)


def timings(**parts):
    taken = Timings()
    for name, (amount, seconds) in parts.items():
        taken.add(name.replace("_", " "), amount, seconds)
    return taken


def training_rate(times, nodes):
    return times.rate(times.parts(nodes["teacher"])[0])


def test_a_learned_rate_is_used_for_its_work_and_for_no_other(tmp_path):
    learned, nodes = forecast(tmp_path)
    learned.learn(nodes["teacher"], timings(training=(12_800, 64.0), likelihood=(1797, 3.0)), seconds=72.0)
    time = learned.of_stage(nodes["teacher"])
    assert [part.seconds for part in time.parts] == pytest.approx([179_200 / 200.0, 3.0, 5.0])
    assert [part.rate for part in time.parts] == pytest.approx([200.0, 599.0, 0.2]) and time.measured == 1
    assert time.facts()["training_seconds"] == pytest.approx(896.0)
    longer, nodes = forecast(tmp_path, "teacher.training.images=358400", "teacher.training.lr=1e-3", "seed=3")
    assert longer.of_stage(nodes["teacher"]).seconds == pytest.approx(2 * 896 + 3 + 5)
    for other in ("batch=64", "precision=bfloat16", "accumulate=2"):
        others, nodes = forecast(tmp_path, f"teacher.training.{other}")
        assert training_rate(others, nodes) is None
    for other in (
        "teacher.width=64",
        "compute.threads=2",
        "compute.nproc=2",
        "teacher.patch=4",
        "compute.compile=true",
    ):
        others, nodes = forecast(tmp_path, other)
        assert training_rate(others, nodes) is None, other
    moved, nodes = forecast(tmp_path)
    moved.where["device"] = "another"
    assert training_rate(moved, nodes) is None


def test_an_estimate_is_the_counted_work_at_the_device_s_speed(tmp_path):
    slow, nodes = forecast(tmp_path)
    fast, _ = forecast(tmp_path, speed=FAST)
    for name in ("teacher", "bank", "reference"):
        one, two = slow.of_stage(nodes[name]), fast.of_stage(nodes[name])
        assert one.measured == two.measured == 0
        for before, after in zip(one.parts[:-1], two.parts[:-1], strict=True):
            assert before.seconds == pytest.approx(2 * after.seconds) and before.seconds > 0


def test_the_work_of_a_training_is_three_forward_passes_and_more(tmp_path):
    _, nodes = forecast(tmp_path)
    shape = image_shape(nodes["data"].config, None)
    (training, *_) = parts(nodes["student"], shape, recipe().compute)
    forward = forward_work(student_architecture(nodes["student"].config, shape))
    assert training.work().flops == pytest.approx(3 * forward.flops, rel=0.02)
    online = build(recipe("student.coupling={kind: nfm, online: true}"))
    more = parts(online["student"], shape, recipe().compute)[0].work().flops - training.work().flops
    (sigma, *_) = parts(nodes["bank"], shape, recipe().compute)
    assert more == pytest.approx(sigma.work().flops)


def test_amounts_are_counted_from_the_recipe(tmp_path):
    made = recipe(
        "evaluation.samples=1000",
        "evaluation.student=[{solver: euler, nfe: [1, 4]}, {solver: dopri5}]",
        "pairs.count=500",
        "onestep.steps=2",
        "evaluation.onestep=[{solver: euler, grid: uniform, nfe: [2]}]",
    )
    nodes = build(made)
    shape = image_shape(made.data, None)
    amounts = {(name, part.name): part.amount for name in nodes for part in parts(nodes[name], shape, made.compute)}
    assert amounts["evaluation", "sampling student"] == 1000 * (1 + 4 + DOPRI5_CALLS)
    assert amounts["evaluation", "sampling onestep"] == 2000 and amounts["evaluation", "sampling teacher"] == 1000
    assert amounts["evaluation", "features"] == 5 * 1000
    assert amounts["bank", "bank"] == 8 * 1438 == amounts["bank", "sigma"] == amounts["bank", "whitening"]
    assert amounts["pairs", "pairs"] == 500 * 8  # network calls, in 500 x 2 rows of half a path each


def test_pairs_are_learned_in_network_calls(tmp_path):
    learned, nodes = forecast(tmp_path, "pairs.nfe=1")
    learned.learn(nodes["pairs"], timings(pairs=(1000, 2.0)), seconds=3.0)
    eight, nodes = forecast(tmp_path)
    assert eight.of_stage(nodes["pairs"]).parts[0].seconds == pytest.approx(12_000 * 8 / 500)


def test_a_resumed_stage_teaches_no_rest(tmp_path):
    learned, nodes = forecast(tmp_path)
    learned.learn(nodes["student"], timings(training=(1280, 4.0)), seconds=5.0, resumed=True)
    assert [part.rate for part in learned.of_stage(nodes["student"]).parts] == [320.0, None]


def test_images_that_nobody_has_counted_have_no_time(tmp_path):
    made = recipe("data.classes=[0, 1]")
    nodes = build(made)
    assert Forecast(made.compute, tmp_path, speed=SPEED).of_stage(nodes["teacher"]) is None
    counted = {"train": 300, "test": 60, "channels": 1, "size": 8, "classes": ("0", "1")}
    assert Forecast(made.compute, tmp_path, counted, SPEED).of_stage(nodes["teacher"]).seconds > 0


@pytest.mark.parametrize(
    ("name", "saved", "share"),
    [
        ("training", None, 1.0),
        ("training", Saved(30, 40, "images"), 0.25),
        (REST, Saved(30, 40, "images"), 1.0),
        ("features", Saved(3, 4, "figures"), 0.0),
        (REST, Saved(3, 4, "figures"), 0.25),
    ],
)
def test_what_is_left_of_a_part(name, saved, share):
    assert left(Part(name, 1, "images", {}), saved) == share


def test_a_plan_has_the_stages_ahead_and_what_is_left_of_them(tmp_path):
    store = Store(tmp_path)
    store.prepare()
    ahead, nodes = forecast(tmp_path)
    ahead.learn(nodes["student"], timings(training=(1280, 4.0)), seconds=5.0)
    work = store.work("student", nodes["student"].fingerprint)
    write_json(work / "saved.json", {"done": 76_800, "total": 153_600, "unit": "images"})
    few = {name: nodes[name] for name in ("data", "student", "report")}
    times = ahead.of_plan(plan(few, store), store)
    assert list(times) == [node.fingerprint for node in few.values()]
    assert times[nodes["student"].fingerprint].seconds == pytest.approx(76_800 / 320 + 1)


def test_the_share_that_is_measured():
    assert measured_share([(30.0, True), (10.0, False)]) == 0.75
    assert measured_share([]) == 0


@pytest.mark.parametrize("name", ["nfm-digits-meanflow", "meanflow-digits", "sr-digits", "sd-digits", "data-to-data"])
def test_every_kind_of_stage_has_a_time(tmp_path, name):
    made = load(name, ["compute.device=cpu", "student.network.multipliers=[1]", "student.network.attention=[]"])
    counted = {"train": 300, "test": 60, "channels": 1, "size": 8, "classes": tuple("0123456789")}
    nodes = build(made, recorded=lambda stage, config: "digest")
    times = Forecast(made.compute, tmp_path, counted, SPEED)
    for stage, node in nodes.items():
        if stage != "source":
            assert all(part.seconds > 0 for part in times.of_stage(node).parts), stage


def test_the_work_of_inception_features_is_the_published_one():
    """Some 5.7 billion multiplications with their additions for an image of 299 x 299, as libraries state it."""
    shape = image_shape(load("nfm-cifar10").data, None)
    assert extractor_work("inception", shape).flops == pytest.approx(2 * 5.7e9, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped())
def test_every_shipped_recipe_has_times_before_its_images_are_there(tmp_path, name):
    """Apart from those that choose among the classes, whose images have to be counted."""
    overrides = []
    if load(name).data.autoencoder is not None:  # whose sizes are in its folder
        blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
        make_autoencoder(tmp_path / "autoencoder", channels=3, block_out_channels=(8,) * 4, **blocks)
        overrides = [f"data.autoencoder={tmp_path / 'autoencoder'}"]
    made = load(name, overrides)
    times = Forecast(made.compute, tmp_path, None, SPEED)
    for stage, node in build(made, recorded=lambda stage, config: "digest").items():
        time = times.of_stage(node)
        assert made.data.classes if time is None else time.seconds > 0, stage


def test_average_velocities_cost_a_product_in_forward_mode(tmp_path):
    shape = image_shape(recipe().data, None)
    plain, average = (
        parts(build(recipe(f"student.objective={objective}"))["student"], shape, recipe().compute)[0].work().flops
        for objective in ("flow-matching", "{kind: meanflow, interval_share: 0.5}")
    )
    assert average / plain == pytest.approx(1 + 0.5 * 2 / 3, rel=0.02)


def test_average_velocities_under_a_condition_have_a_time(tmp_path):
    jump = ["student.objective=meanflow", "evaluation.student=[{solver: jump, nfe: [1]}]"]
    small = ["compute.device=cpu", "student.network.multipliers=[1]", "student.network.attention=[]"]
    made = load("sr-digits", [*small, *jump])
    counted = {"train": 300, "test": 60, "channels": 1, "size": 8, "classes": tuple("0123456789")}
    node = build(made, recorded=lambda stage, config: "digest")["student"]
    assert Forecast(made.compute, tmp_path, counted, SPEED).of_stage(node).seconds > 0


def training_facts(name, *overrides):
    made = load(name, [*overrides, "compute.device=cpu"])
    node = build(made)["student"]
    return parts(node, image_shape(made.data, None), made.compute)[0]


def test_what_a_coupling_searches_or_encodes_for_a_batch_is_part_of_its_speed():
    within, across = (training_facts("sd-digits", f"potentials.within_classes={value}") for value in ("true", "false"))
    assert within.facts != across.facts and within.work().flops < across.work().flops
    online = "student.coupling={kind: nfm, online: true}"
    narrow, wide = (training_facts("nfm-digits", online, f"teacher.width={width}") for width in (64, 512))
    assert narrow.facts != wide.facts and narrow.work().flops < wide.work().flops
    assert training_facts("nfm-digits").facts == training_facts("nfm-digits", "teacher.width=512").facts  # from a bank


@pytest.mark.parametrize(
    ("stage", "quality", "each"),
    [
        ("student", "student.quality={points: %d, samples: 500, nfe: 31, solver: euler}", 500 * 31),
        ("teacher", "teacher.quality={points: %d}", 359),
    ],
)
def test_scores_at_points_of_a_training_have_a_time_and_do_not_slow_its_rate_down(tmp_path, stage, quality, each):
    def scoring(points):
        times, nodes = forecast(tmp_path, quality % points)
        node = nodes[stage]
        (part,) = [part for part in times.parts(node) if part.name == "quality"]
        (timed,) = [found.seconds for found in times.of_stage(node).parts if found.part.name == "quality"]
        return part, timed

    part, seconds = scoring(10)
    assert part.amount == 10 and scoring(20)[1] == pytest.approx(2 * seconds)
    network = (student_architecture if stage == "student" else teacher_architecture)(
        getattr(recipe(), stage), image_shape(recipe().data, None)
    )
    assert part.work().flops == pytest.approx(each * forward_work(network).flops)


@pytest.fixture
def latents(tmp_path):
    """nfm-cifar10 on latents of 4x16x16."""
    pytest.importorskip("diffusers")
    network = make_autoencoder(tmp_path, channels=3)
    return network, load("nfm-cifar10", [f"data.autoencoder={tmp_path}", "reference.extractor=classifier"])


def test_latents_are_judged_as_pixels_and_mirror_images_once(latents):
    _, made = latents
    node, shape = build(made)["reference"], image_shape(made.data, None)
    assert (shape.channels, shape.size, shape.pixels, shape.rows) == (4, 16, (3, 32), 100_000)
    features = {part.name: part for part in parts(node, shape, made.compute)}["features"]
    assert features.amount == 60_000 and (features.facts["channels"], features.facts["size"]) == (3, 32)


def test_the_way_into_latents_and_back_has_a_time(latents):
    network, made = latents
    nodes, shape = build(made), image_shape(made.data, None)
    way_in = {part.name: part for part in parts(nodes["data"], shape, made.compute)}["latents"]
    back = {part.name: part for part in parts(nodes["evaluation"], shape, made.compute)}["decoding"]
    scored = {part.name: part for part in parts(nodes["evaluation"], shape, made.compute)}["features"]
    assert way_in.amount == 2 * 50_000 + 10_000 and back.amount == scored.amount
    with torch.no_grad():
        assert way_in.work().flops == counted(lambda: network.encode(torch.zeros(1, 3, 32, 32))).flops
        assert back.work().flops == counted(lambda: network.decode(torch.zeros(1, 4, 16, 16))).flops
    pixels, values = 60_000 * 3 * 32**2, (2 * 50_000 + 10_000) * 4 * 16**2
    assert estimate(nodes["data"]).disk_bytes == pixels + 4 * values


def test_a_set_of_latents_whose_size_is_given_has_its_pixels_counted(tmp_path):
    make_autoencoder(tmp_path, channels=3)
    expected = "{train: 100, test: 10, channels: 4, size: 32, classes: 5}"
    made = load("nfm-cifar10", [f"data.autoencoder={tmp_path}", f"data.expected={expected}", "data.flips=false"])
    assert image_shape(made.data, None).pixels == (3, 64)


def test_nearest_training_images_are_searched_in_pixels(latents):
    _, made = latents
    shape, node = image_shape(made.data, None), build(made)["evaluation"]
    larger = replace(shape, pixels=(3, 64))
    more = pictures_work(node, made.evaluation, larger).flops - pictures_work(node, made.evaluation, shape).flops
    kept = min(made.evaluation.samples, STORED_SAMPLES)
    compared = kept * (1 + len(students_among(node.inputs))) + STORED_SAMPLES
    assert more == pytest.approx(2 * compared * shape.rows * 3 * (64**2 - 32**2))
