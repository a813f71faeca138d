"""Every stage for real, on hardly any work: what they publish is what their formulas say."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from flows.session.session import needed_for
from models.tarflow import decode, full_precision
from pipeline.data.examples import Examples
from pipeline.engine import dag
from pipeline.engine.dag import build
from pipeline.engine.execute import execute
from pipeline.metrics import Moments, features, frechet_distance
from pipeline.outputs import networks
from pipeline.outputs.banks import BANK, encoder
from pipeline.outputs.images import IMAGES
from pipeline.outputs.reference import load_extractor, load_features
from pipeline.outputs.whitening import WHITENING, standard_of
from pipeline.recipe.load import load
from pipeline.runtime.job import Job, Progress
from pipeline.runtime.noise import noise
from pipeline.runtime.seeds import derive
from pipeline.stages import bank as bank_stage
from pipeline.stages import onestep, pairs, student
from storage.atomic import write_bytes
from storage.bank import Bank
from storage.errors import DamageError, InputError
from storage.imageset import ImageSet
from storage.store import Store
from tests.pipeline.data.sources.formats import coloured, encoded, make_folder
from tests.reliability import damage
from tests.tiny import TINY


def run(home, *overrides, recipe="nfm-digits", until="report"):
    """The artifacts of a stage and of all it needs; those that are there are found."""
    resolved = load(recipe, [*TINY, *overrides] if recipe == "nfm-digits" else list(overrides))
    store = Store(home)
    store.prepare()
    made = {}
    for name, node in needed_for(until, build(resolved, store.home / "cache")).items():
        inputs = {role: made[role] for role in node.inputs}
        made[name] = execute(node, inputs, store, resolved.compute).artifact
    return made


@pytest.fixture(scope="module")
def made(home):
    return run(home, "evaluation.noise_cost=true")


def job_of(stage, config, inputs, work):
    return Job(stage, config, inputs, work, load("nfm-digits", TINY).compute, Progress(stage, work))


def examples_of(made, split):
    images = ImageSet.open(made["data"].path(IMAGES))
    part = getattr(images, split)
    return Examples(part.images, part.labels, images.levels)


def test_the_bank_decodes_to_the_noisy_images(made):
    flow = networks.load_network(made["teacher"])
    images = ImageSet.open(made["data"].path(IMAGES))
    bank = Bank.open(made["bank"].path(BANK))
    z, facts = bank.load()["z"], bank.facts
    rows = torch.arange(len(images.train.images))
    examples = Examples(images.train.images, images.train.labels, images.levels)
    for draw in range(facts.draws):
        noisy = examples.pixels(rows) + facts.noise_std * noise(
            facts.seed, rows, torch.full_like(rows, draw), examples.shape
        )
        with full_precision(flow):
            decoded = decode(flow, torch.from_numpy(z[draw]) * facts.sigma_f, examples.classes(rows))
        assert (decoded - noisy).abs().max() < 1e-4


def test_a_large_bank_is_diagnosed_by_some_of_its_rows(made, tmp_path, monkeypatch):
    monkeypatch.setattr(bank_stage, "DIAGNOSED_VALUES", 50 * 64)
    work = tmp_path / "work"
    shutil.copytree(made["bank"].root, work / "out")
    config = load("nfm-digits", TINY).sections()["bank"]
    job = Job(
        "bank",
        config,
        {role: made[role] for role in ("data", "teacher")},
        work,
        load("nfm-digits", TINY).compute,
        Progress("bank", work),
    )
    some = dag.stage_named("bank").module().run(job).gaussianity
    whole = made["bank"].metrics["gaussianity"]
    assert some["train"]["n"] == 50 and some["held_out"]["n"] == min(50, whole["held_out"]["n"])
    assert some["train"]["std"] == pytest.approx(whole["train"]["std"], rel=0.1)
    assert some["transport_cost"]["total"] == pytest.approx(whole["transport_cost"]["total"], rel=0.1)


def test_sigma_makes_the_bank_of_unit_size(made):
    z = Bank.open(made["bank"].path(BANK)).load()["z"]
    assert np.square(z.astype(np.float64)).mean() == pytest.approx(1, abs=1e-5)


def test_a_whitened_bank_is_the_plain_one_through_each_classs_map(home, made):
    white = run(home, "bank.whiten=true", "evaluation.noise_cost=true", until="evaluation")
    plain, images = Bank.open(made["bank"].path(BANK)).load()["z"], ImageSet.open(made["data"].path(IMAGES))
    bank, labels = Bank.open(white["bank"].path(BANK)), torch.from_numpy(images.train.labels).long()
    few = [line for line in white["bank"].metrics["warnings"] if "bank.draws_per_image" in line]
    assert len(few) == 1  # some 40 noises of 64 numbers
    assert bank.facts.whitened and white["bank"].metrics["whitened"] and not made["bank"].metrics["whitened"]
    standard = standard_of(white["bank"], torch.device("cpu"))
    z = torch.from_numpy(bank.load()["z"])
    for draw in range(bank.facts.draws):
        mapped = standard.whitening(torch.from_numpy(plain[draw]), labels)
        torch.testing.assert_close(z[draw], mapped, atol=1e-5, rtol=1e-5)
    for label in labels.unique():
        own = z[:, labels == label].flatten(0, 1).flatten(1).double()
        count, values = own.shape
        # The class's noises and as many of N(0, I) as there are values, all mapped, have mean 0 and covariance I.
        m, w = (part[label].double() for part in standard.whitening)
        shifted = -w @ m
        assert torch.allclose(own.sum(0) + values * shifted, torch.zeros(values).double(), atol=1e-2 * count)
        second = own.T @ own + values * (w @ w + torch.outer(shifted, shifted))
        torch.testing.assert_close(second / (count + values), torch.eye(values).double(), atol=1e-3, rtol=0)
    # Held-out noise is mapped too, where it is judged and where the cost of the noise is measured.
    unseen, stage = examples_of(made, "test"), load("nfm-digits", TINY).sections()["bank"]
    flow, eta = networks.load_network(made["teacher"]), made["teacher"].config["noise_std"]
    encode = encoder(flow, unseen, eta, derive(stage.seed, "held-out"), torch.device("cpu"), standard)
    found = white["bank"].metrics["gaussianity"]["held_out"]["std"]
    assert found == pytest.approx(encode(torch.arange(len(unseen))).std().item(), rel=1e-3)
    costs = [white["evaluation"].metrics["noise_cost"], made["evaluation"].metrics["noise_cost"]]
    assert costs[0] and costs[0][-1]["value"] != costs[1][-1]["value"]


@pytest.fixture
def whitened_job(made, tmp_path):
    """The stage bank with whitening, at work in a folder of this name."""
    config = load("nfm-digits", [*TINY, "bank.whiten=true"]).sections()["bank"]

    def job(name: str) -> Job:
        (tmp_path / name).mkdir(exist_ok=True)
        return job_of("bank", config, {role: made[role] for role in ("data", "teacher")}, tmp_path / name)

    return job


def whitening_files(job: Job) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (job.out / WHITENING).iterdir()}


def test_a_class_that_is_measured_is_not_measured_again(whitened_job):
    bank_stage.run(whole := whitened_job("whole"))
    files = whitening_files(whole)
    resumed = whitened_job("resumed")  # with the file of another class, to tell it from one that is measured here
    write_bytes(resumed.out / WHITENING / "000003.safetensors", files["000004.safetensors"])
    bank_stage.run(resumed)
    assert whitening_files(resumed) == files | {"000003.safetensors": files["000004.safetensors"]}


@pytest.mark.parametrize("harm", damage.EVERY)
def test_a_damaged_class_is_measured_again(whitened_job, harm):
    bank_stage.run(whole := whitened_job("whole"))
    files = whitening_files(whole)
    torn = whitened_job("torn")
    for name in ("000003.safetensors", "000009.safetensors"):
        write_bytes(torn.out / WHITENING / name, files[name])
    harm(torn.out / WHITENING / "000003.safetensors")
    bank_stage.run(torn)
    assert whitening_files(torn) == files


def test_a_class_that_vanishes_on_the_way_is_noticed(whitened_job, monkeypatch):
    job = whitened_job("vanishing")
    progress = job.progress

    def vanish(done, total, unit, **figures):
        if "whitening" in unit:
            (job.out / WHITENING / "000000.safetensors").unlink(missing_ok=True)
        progress(done, total, unit, **figures)

    monkeypatch.setattr(job, "progress", vanish)
    with pytest.raises(FileNotFoundError):  # which `execute` reports as files that vanished
        bank_stage.run(job)


def test_a_damaged_whitening_is_named_by_the_stage_that_reads_it(home):
    bank = run(home, "bank.whiten=true", until="bank")["bank"]
    file = bank.path(WHITENING) / "000002.safetensors"
    intact = file.read_bytes()
    try:
        file.write_bytes(intact[:-1] + bytes([intact[-1] ^ 1]))
        with pytest.raises(DamageError, match="force bank"):
            standard_of(bank, torch.device("cpu"))
    finally:
        file.write_bytes(intact)


def test_held_out_noise_is_measured_in_the_units_of_the_bank(made):
    """Encoded here once more: all images of the split, each with a draw of its own."""
    found, sigma = made["bank"].metrics["gaussianity"], made["bank"].metrics["sigma_f"]
    unseen = examples_of(made, "test")
    rows = torch.arange(len(unseen))
    eps = noise(derive(load("nfm-digits", TINY).sections()["bank"].seed, "held-out"), rows, 0, unseen.shape)
    y = unseen.pixels(rows) + made["teacher"].config["noise_std"] * eps
    z = networks.load_network(made["teacher"]).encode(y, unseen.classes(rows)) / sigma
    assert abs(sigma - 1) > 0.05 and found["held_out"]["n"] == len(unseen)
    assert found["held_out"]["std"] == pytest.approx(z.std().item(), rel=1e-3)
    assert found["train"]["std"] ** 2 + found["train"]["mean"] ** 2 == pytest.approx(1, abs=0.02)


def test_the_bank_carries_its_teacher_and_is_refused_under_another(made):
    from pipeline.stages._coupling import teacher_bank

    bank = Bank.open(made["bank"].path(BANK))
    assert bank.facts.producer == made["teacher"].fingerprint
    other = made["bank"].model_copy(update={"inputs": {"teacher": "0" * 64}})
    other._root = made["bank"].root
    config = load("nfm-digits", TINY).sections()["student"]
    job = Job(
        "student",
        config,
        {"bank": other},
        made["student"].root,
        load("nfm-digits").compute,
        Progress("student", made["student"].root),
    )
    with pytest.raises(DamageError) as raised:
        teacher_bank(job)
    assert raised.value.what == str(made["bank"].path(BANK))


def test_inference_batch_and_process_change_no_bit_of_the_bank(made, tmp_path):
    other = run(tmp_path, "compute.inference_batch=7", until="bank")
    same = {file.path: file.sha256 for file in other["bank"].files if "bank" in file.path}
    assert same == {file.path: file.sha256 for file in made["bank"].files if "bank" in file.path}


def test_pairs_end_where_the_student_leads(made):
    from pipeline.flow_matching.sampling import starting_noise, student_samples
    from pipeline.recipe.sections import Sweep

    bank = Bank.open(made["pairs"].path(pairs.PAIRS)).load()
    network = networks.load_network(made["student"])
    z, x, labels = (torch.from_numpy(bank[name][0]) for name in ("z", "x", "labels"))
    assert made["pairs"].config["temperature"] == 1.1  # of the ODE's start; z is stored without it
    noise = starting_noise(derive(0, "pairs"), torch.arange(len(z)), (1, 8, 8))
    assert torch.equal(z, noise)
    again, calls = student_samples(network, 1.1 * z, labels, Sweep(solver="euler", grid="uniform", nfe=(2,)), 2)
    assert calls == 2
    assert (again - x).abs().max() < 1e-5


@pytest.mark.parametrize("mode", ["distil", "reflow"])
def test_one_step_is_learned_at_the_noise_alone_and_reflow_over_all_times(made, tmp_path, mode):
    config = load("nfm-digits", [*TINY, f"onestep.mode={mode}"]).sections()["onestep"]
    couples = onestep._batches(job_of("onestep", config, {"pairs": made["pairs"]}, tmp_path))
    t = torch.cat([couples(step).t for step in range(4)])
    assert (t == 1).all() if mode == "distil" else (t.min() < 0.1 and 0.4 < t.mean() < 0.6)
    assert (couples(4).labels >= 0).all()


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_student_is_trained_with_a_share_of_labels_dropped(made, tmp_path, monkeypatch, share):
    class Training(Exception):
        pass

    def train(job, network, couples, *_):
        raise Training(couples)

    monkeypatch.setattr(student, "train", train)
    config = load("nfm-digits", [*TINY, f"student.label_drop={share}"]).sections()["student"]
    with pytest.raises(Training) as found:
        student.run(job_of("student", config, {role: made[role] for role in ("data", "bank")}, tmp_path))
    [couples] = found.value.args
    dropped = torch.cat([couples(step).labels for step in range(10)]) == -1
    assert abs(float(dropped.double().mean()) - share) < (0.06 if share else 1e-9)  # 640 of them: 3 sigma


def test_the_reference_tells_the_distance_of_held_out_images_from_those_of_training(made):
    images = ImageSet.open(made["data"].path(IMAGES))
    network = load_extractor(made["reference"], images, torch.device("cpu"))
    real = load_features(made["reference"], "train").moments
    measured = {
        split: features(network, part.pixels(torch.arange(len(part))))
        for split in ("train", "test")
        if (part := examples_of(made, split))
    }
    held_out = frechet_distance(real, Moments.of(measured["test"]))
    assert made["reference"].metrics["held_out"] == pytest.approx(held_out, rel=1e-4) and held_out > 0.1
    assert frechet_distance(real, Moments.of(measured["train"])) == pytest.approx(0, abs=1e-3)
    for split, rows in measured.items():
        stored = load_features(made["reference"], split)
        torch.testing.assert_close(stored.rows, rows)
        assert stored.moments.count == len(rows)


def test_scores_count_calls_and_carry_their_protocol(made):
    scores = made["evaluation"].metrics["scores"]
    assert [(score["model"], score["solver"], score["nfe"]) for score in scores] == [
        ("teacher", "inverse", 0),
        ("student", "euler", 1),
        ("student", "euler", 2),
        ("student", "heun", 3),
        ("onestep", "euler", 1),
    ]
    for score in scores:
        assert score["metric"] == "FD-classifier"
        assert {
            "extractor",
            "reference",
            "n_real",
            "n_fake",
            "quantised",
            "split",
            "seed",
            "images_seen",
            "ema",
        } <= set(score["protocol"])


def test_the_student_is_also_sampled_from_encoded_held_out_images(made):
    scores = made["evaluation"].metrics["noise_cost"]
    assert [(score["model"], score["solver"], score["nfe"]) for score in scores] == 2 * [
        ("student", "euler", 1),
        ("student", "euler", 2),
        ("student", "heun", 3),
    ]
    for normal, from_z in zip(scores[:3], scores[3:], strict=True):
        assert from_z["value"] != normal["value"] and from_z["value_held_out"] > 0
        assert from_z["protocol"]["start"] == "z of 100 held-out images" and "start" not in normal["protocol"]
        assert normal["protocol"]["n_fake"] == normal["protocol"]["n_held_out"] == 100
    assert [line for line in made["evaluation"].metrics["warnings"] if "noise" in line and "100 images" in line]


def test_the_bank_is_probed_for_gaussianity_and_classes(made):
    figures = made["bank"].metrics["gaussianity"]
    assert figures["two_sample"]["decisions"] == 400 and 0.4 < figures["two_sample"]["accuracy"] <= 1
    assert figures["class_leak"]["decisions"] == 200 and figures["class_leak"]["chance"] < 0.2
    assert made["student"].metrics["class_leak"]["decisions"] == 200


def test_pictures_and_page_are_there(made):
    for stage, name in (("teacher", "samples.png"), ("bank", "noise.png"), ("evaluation", "samples.png")):
        assert min(Image.open(made[stage].path(name)).size) > 40
    assert made["report"].path("report.html").read_text().startswith("<!")
    lines = [json.loads(line) for line in made["student"].path("history.jsonl").read_text().splitlines()]
    assert lines[-1]["images"] == 1024


def test_reflow_over_all_times_is_the_same_stage(home):
    made = run(home, "onestep.mode=reflow", until="onestep")
    assert made["onestep"].metrics["coupling"] == "reflow"


ALONE = ["pairs=null", "onestep=null", "evaluation.onestep=[]"]


def test_a_coupling_without_a_teacher(home):
    made = run(home, "student.coupling=independent", "teacher=null", "bank=null", *ALONE)
    assert "teacher" not in made
    assert made["student"].metrics["coupling"] == "independent"
    assert made["student"].metrics["transport_cost"] > 0


def test_ones_own_coloured_images_with_flips(tmp_path):
    folder = make_folder(
        tmp_path / "photos", {f"{kind}/{i}.png": encoded(coloured(i)) for kind in ("cat", "dog") for i in range(20)}
    )
    made = run(
        tmp_path / "home",
        "data.source=images",
        f"data.path={folder}",
        "data.flips=true",
        "data.limit=null",
        *ALONE,
        until="evaluation",
    )
    assert made["data"].metrics["classes"] == ["cat", "dog"]
    assert made["bank"].metrics["rows"] == 2 * made["data"].metrics["train"]


def test_images_without_classes_say_what_to_set(tmp_path):
    folder = make_folder(tmp_path / "photos", {f"{i}.png": encoded(coloured(i)) for i in range(20)})
    own = ["data.source=images", f"data.path={folder}", "data.limit=null"]
    with pytest.raises(InputError, match=r"reference\.extractor"):
        run(tmp_path / "home", *own)
    made = run(tmp_path / "home", *own, *ALONE, "reference.extractor=pixels", until="evaluation")
    assert made["evaluation"].metrics["scores"][0]["metric"] == "FD-pixels"


def test_a_guided_teacher_is_sampled_as_its_recipe_says(home):
    made = run(
        home,
        *ALONE,
        "teacher.guidance=1.5",
        "teacher.annealed=true",
        "teacher.attention_temperature=0.9",
        "teacher.temperature=0.8",
        until="evaluation",
    )
    protocol = made["evaluation"].metrics["scores"][0]["protocol"]
    assert (protocol["guidance"], protocol["annealed"], protocol["temperature"]) == (1.5, True, 0.8)


def test_sampling_fields_added_later_kept_old_teachers():
    old = build(load("nfm-digits"))["teacher"].fingerprint
    assert build(load("nfm-digits", ["teacher.temperature=1.0"]))["teacher"].fingerprint == old
    assert build(load("nfm-digits", ["teacher.temperature=0.9"]))["teacher"].fingerprint != old
