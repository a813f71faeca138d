"""Rounds of reflow and distillation to several steps, by the real stages on hardly any work."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from flows.session.session import needed_for
from flows.views.sample_request import SampleRequest
from flows.views.samples import draw
from pipeline.data.examples import Examples
from pipeline.data.levels import quantise
from pipeline.engine.dag import build
from pipeline.engine.execute import execute
from pipeline.flow_matching.intervals import states_between
from pipeline.flow_matching.sampling import TOLERANCE, starting_noise, student_samples
from pipeline.flow_matching.solvers import CountedField, Dopri5, Euler, Guided, integrate
from pipeline.flow_matching.times import time_grid
from pipeline.outputs import networks
from pipeline.outputs.banks import BANK, FORWARD, PAIRS
from pipeline.outputs.images import IMAGES
from pipeline.outputs.results import ReflowResult
from pipeline.recipe.load import load
from pipeline.recipe.sections import Sweep
from pipeline.runtime.job import StopSignal, read_saved
from pipeline.runtime.seeds import derive
from pipeline.training.flow_batches import FlowBatches
from pipeline.training.segments import Segments
from storage.bank import Bank
from storage.errors import Interrupted
from storage.imageset import ImageSet
from storage.store import Store
from tests.pipeline.flow_matching.losses.published import features, linear
from tests.tiny import TINY

TRAINING = "training: {images: 512, batch: 64, lr: 1.0e-3, ema: 128}"
ROUND = "{{pairs: {{count: {}, solver: {}, grid: uniform, nfe: {}, dtype: {}, shard: 40}}, mix: {{forward: {}}}, {}}}"
FIRST = ROUND.format(96, "euler", 4, "float32", 0.25, TRAINING)
SECOND = ROUND.format(
    32, "dopri5", "null", "float16", 0.0, f"time: {{kind: u-shaped}}, loss: {{kind: pseudo-huber}}, {TRAINING}"
)
QUICK = [
    *TINY,
    "teacher.training.images=256",
    "student.training.images=512",
    "evaluation.likelihood=null",
    "reference.extractor=pixels",
    "evaluation.teacher=false",
]
NFM = [
    *QUICK,
    f"reflow=[{FIRST}, {SECOND}]",
    "onestep.steps=2",
    "evaluation.onestep=[{grid: uniform, nfe: [2]}]",
    "pairs.nfe=4",
    "pairs.count=48",
]
ALONE = [*QUICK, "student.coupling=independent", "teacher=null", "bank=null", f"reflow=[{FIRST}]"]


def make(store: Store, overrides, stage: str):
    """The artifacts of a stage and of all it needs; those that are there are found."""
    recipe = load("nfm-digits", overrides)
    made = {}
    for name, node in needed_for(stage, build(recipe, store.home / "cache")).items():
        made[name] = execute(node, {role: made[role] for role in node.inputs}, store, recipe.compute).artifact
    return made


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    store = Store(tmp_path_factory.mktemp("store"))
    store.prepare()
    return store


@pytest.fixture(scope="module")
def nfm(store):
    """Two rounds, then two steps."""
    return make(store, NFM, "onestep")


@pytest.fixture(scope="module")
def alone(store):
    """A round of a student without a teacher."""
    return make(store, ALONE, "reflow-1")


def bank(artifact, name: str = PAIRS) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(rows[0]) for key, rows in Bank.open(artifact.path(name)).load().items()}


def digests(artifact) -> dict[str, str]:
    return {record.path: record.sha256 for record in artifact.files}


@pytest.mark.parametrize(
    ("stage", "student", "solver", "nfe", "bound"),
    [
        pytest.param("pairs-1", "student", "euler", 4, 1e-5, marks=pytest.mark.slow),
        ("pairs-2", "reflow-1", "dopri5", 0, 2e-3),
    ],
)
def test_stored_noise_leads_to_the_stored_image(nfm, stage, student, solver, nfe, bound):
    """To the precision it is stored in: float16 keeps 11 bits of numbers up to 4, and it is the stored noise, rounded,
    whose image is stored."""
    made, facts = bank(nfm[stage]), Bank.open(nfm[stage].path(PAIRS)).facts
    assert facts.producer == nfm[student].fingerprint and solver in facts.solver
    how = Sweep(solver=solver, grid="uniform", nfe=(nfe,) if nfe else ())
    again, calls = student_samples(networks.load_network(nfm[student]), made["z"].float(), made["labels"], how, nfe)
    assert calls == nfe or calls > 10
    error = (again - made["x"].float()).abs()
    assert error.max() < bound * max(1.0, again.abs().max().item())
    # Its seed is stored, so that anyone can draw it again.
    expected = starting_noise(facts.seed, torch.arange(len(made["z"])), (1, 8, 8))
    assert torch.equal(made["z"], expected.to(made["z"].dtype)) and made["z"].dtype == made["x"].dtype
    assert facts.seed == derive(0, stage)


def test_each_round_goes_on_from_the_student_before_it_and_reports_its_paths(nfm):
    for name, before, forward in (("reflow-1", "student", True), ("reflow-2", "reflow-1", False)):
        artifact, pairs = nfm[name], nfm[name.replace("reflow", "pairs")]
        result = ReflowResult.model_validate(artifact.metrics)
        assert result.coupling == "reflow" and result.images_seen == 512
        assert result.straightness_before == pairs.metrics["straightness"] > 0
        assert bool(result.warnings) == (result.straightness > result.straightness_before)
        assert (artifact.inputs[before], "bank" in artifact.inputs) == (nfm[before].fingerprint, forward)
        old, new = (networks.load_network(nfm[role]).state_dict() for role in (before, name))
        assert old.keys() == new.keys() and any(not torch.equal(old[key], new[key]) for key in old)


def test_noises_differ_between_rounds(nfm):
    assert (bank(nfm["pairs-1"])["z"][:32] - bank(nfm["pairs-2"])["z"].float()).abs().mean() > 0.5


def test_pairs_for_two_steps_hold_each_path_at_three_times(nfm):
    made, network = bank(nfm["pairs"]), networks.load_network(nfm["reflow-2"])
    assert len(made["z"]) == 96 and Bank.open(nfm["pairs"].path(PAIRS)).facts.rows == 2 * 48
    x, z, labels = made["x"].view(48, 2, 1, 8, 8), made["z"].view(48, 2, 1, 8, 8), made["labels"].view(48, 2)
    assert torch.equal(labels[:, 0], labels[:, 1])
    assert torch.equal(x[:, 1], z[:, 0])  # the end of the first step is the start of the next
    noise = starting_noise(derive(0, "pairs"), torch.arange(48), (1, 8, 8))
    assert torch.equal(z[:, 1], noise)
    velocity = Guided(network, labels[:, 0])
    grid = time_grid("uniform", 4)
    hot = nfm["pairs"].config["temperature"] * noise
    assert not torch.equal(hot, noise)
    torch.testing.assert_close(x[:, 1], integrate(velocity, hot, grid[:3], Euler()), rtol=0, atol=1e-5)
    torch.testing.assert_close(x[:, 0], integrate(velocity, hot, grid, Euler()), rtol=0, atol=1e-5)
    assert nfm["onestep"].metrics["coupling"] == "distil" and nfm["onestep"].config["steps"] == 2


def test_one_path_may_lie_in_two_shards(store, nfm):
    """And the bank does not depend on how it is cut, but for the rounding of batches of other sizes."""
    other = make(store, [*NFM, "pairs.shard=7"], "pairs")["pairs"]
    assert len(list(other.path(PAIRS).glob("complete/*"))) == 14
    for name, rows in bank(other).items():
        torch.testing.assert_close(rows, bank(nfm["pairs"])[name], rtol=0, atol=1e-5)


def test_without_a_teacher_the_students_own_path_backwards_gives_forward_pairs(alone):
    z = bank(alone["pairs-1"], FORWARD)["z"]
    images = ImageSet.open(alone["data"].path(IMAGES))
    examples = Examples.of(images)
    every = torch.arange(len(examples))
    assert len(z) == len(examples)
    velocity = Guided(networks.load_network(alone["student"]), examples.classes(every))
    back = integrate(velocity, examples.pixels(every), time_grid("uniform", 4).flip(0), Euler())
    torch.testing.assert_close(z, back, rtol=0, atol=1e-5)
    facts = Bank.open(alone["pairs-1"].path(FORWARD)).facts
    assert facts.kind == "encoded" and facts.producer == alone["student"].fingerprint
    assert "bank" not in alone["reflow-1"].inputs


def test_the_noise_of_forward_pairs_is_that_of_the_temperature_1(store, alone):
    hot = make(store, [*ALONE[:-1], f"reflow=[{FIRST.replace('nfe: 4', 'nfe: 4, temperature: 2.0')}]"], "pairs-1")
    z = bank(hot["pairs-1"], FORWARD)["z"]
    torch.testing.assert_close(2 * z, bank(alone["pairs-1"], FORWARD)["z"], rtol=0, atol=1e-5)
    assert torch.equal(bank(hot["pairs-1"])["z"], bank(alone["pairs-1"])["z"])


def test_a_round_trains_on_the_banks_pairs_in_the_stated_ratio(nfm, alone, monkeypatch):
    """The stream that the stage hands to training, and where its pairs are from."""
    from pipeline.runtime.job import Job, Progress
    from pipeline.stages import reflow

    class Seen(Exception):
        pass

    for made, where, draws in ((nfm, ("bank", BANK), 2), (alone, ("pairs-1", FORWARD), 1)):
        seen = {}

        def train(job, network, couples, *rest, seen=seen, **more):
            seen.update(couples=couples)
            raise Seen

        monkeypatch.setattr(reflow, "train", train)
        recipe = load("nfm-digits", NFM if made is nfm else ALONE)
        inputs = {role: made[role] for role in made["reflow-1"].inputs}
        job = Job(
            "reflow-1",
            recipe.sections()["reflow-1"],
            inputs,
            made["data"].root,
            recipe.compute,
            Progress("reflow-1", made["data"].root),
        )
        with pytest.raises(Seen):
            reflow.run(job)
        generated = {row.numpy().tobytes() for row in bank(made["pairs-1"])["z"]}
        forward = {row.tobytes() for rows in Bank.open(made[where[0]].path(where[1])).load()["z"] for row in rows}
        z = torch.cat([seen["couples"](step).z for step in range(4)])
        kinds = [row.numpy().tobytes() in forward for row in z]
        assert sum(kinds) == len(z) // 4 and len(forward) == draws * 200
        assert all(row.numpy().tobytes() in generated for row, kind in zip(z, kinds, strict=True) if not kind)


@pytest.mark.parametrize(("stage", "stream"), [("reflow-1", FlowBatches), ("onestep", Segments)])
def test_a_round_interrupted_and_taken_up_ends_with_the_same_bits(store, nfm, tmp_path, monkeypatch, stage, stream):
    recipe, other = load("nfm-digits", NFM), Store(tmp_path)
    other.prepare()
    node = build(recipe, store.home / "cache")[stage]
    inputs, stop, serve = {role: nfm[role] for role in node.inputs}, StopSignal(), stream.__call__

    def stopping(self, step):
        if step == 2:
            stop.request("test")
        return serve(self, step)

    monkeypatch.setattr(stream, "__call__", stopping)
    with pytest.raises(Interrupted):
        execute(node, inputs, other, recipe.compute, stop=stop)
    saved = read_saved(other.work(node.name, node.fingerprint))
    assert (saved.done, saved.total) == (3 * 64, 512)
    outcome = execute(node, inputs, other, recipe.compute)
    assert outcome.action == "resumed"
    weights = "weights.safetensors"
    assert digests(outcome.artifact)[weights] == digests(nfm[stage])[weights]
    assert outcome.artifact.metrics == nfm[stage].metrics


@pytest.mark.parametrize(("model", "steps", "nfe"), [("reflow-2", 3, 3), ("onestep", None, 2)])
def test_its_network_is_sampled_like_any_other_and_a_distilled_one_in_its_own_steps(
    store, nfm, monkeypatch, model, steps, nfe
):
    monkeypatch.setenv("FLOWCTL_HOME", str(store.home))
    images, labels, levels, _ = draw(load("nfm-digits", NFM), SampleRequest(model, steps, "euler", None, None, 5, 12))
    z = starting_noise(derive(5, "sample"), torch.arange(12), (1, 8, 8))
    how = Sweep(solver="euler", grid="uniform", nfe=(nfe,))
    made, _ = student_samples(networks.load_network(nfm[model]), z, torch.from_numpy(labels), how, nfe)
    assert np.abs(quantise(made.numpy(), levels).astype(int) - images.astype(int)).max() <= 1  # by rounding


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pairs-1", "pairs"])
def test_two_ranks_write_the_bytes_of_one(store, nfm, alone, tmp_path, stage):
    made, overrides = (alone, ALONE) if stage == "pairs-1" else (nfm, NFM)
    recipe, other = load("nfm-digits", [*overrides, "compute.nproc=2"]), Store(tmp_path)
    other.prepare()
    node = build(recipe, store.home / "cache")[stage]
    two = execute(node, {role: made[role] for role in node.inputs}, other, recipe.compute).artifact
    assert digests(two) == digests(made[stage])


@pytest.mark.slow
def test_two_ranks_train_the_round_of_one(store, nfm, tmp_path):
    recipe, other = load("nfm-digits", [*NFM, "compute.nproc=2"]), Store(tmp_path)
    other.prepare()
    node = build(recipe, store.home / "cache")["reflow-1"]
    two = execute(node, {role: nfm[role] for role in node.inputs}, other, recipe.compute).artifact
    one, two = (networks.load_network(artifact).state_dict() for artifact in (nfm["reflow-1"], two))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_distillation_by_lpips(store, nfm, tmp_path):
    torch.save(features("alex"), tmp_path / "alexnet.pth")
    save_file(linear("alex"), tmp_path / "alex.safetensors")
    loss = (
        f"onestep.loss={{kind: lpips-huber, network: alex, size: 32, features: {tmp_path}/alexnet.pth, "
        f"linear: {tmp_path}/alex.safetensors}}"
    )
    made = make(store, [*NFM, loss], "onestep")["onestep"]
    assert made.fingerprint != nfm["onestep"].fingerprint and np.isfinite(made.metrics["loss"])
    assert "features" not in str(made.config) and made.config["loss"]["network"] == "alex"


def test_pairs_of_several_steps_report_the_calls_of_all_their_intervals(store):
    made = make(store, [*NFM, "pairs.solver=dopri5", "pairs.nfe=null"], "pairs")
    pairs, network = made["pairs"], networks.load_network(made["reflow-2"])
    z = pairs.config["temperature"] * starting_noise(derive(0, "pairs"), torch.arange(48), (1, 8, 8))
    labels = bank(pairs)["labels"][::2]
    velocity = CountedField(Guided(network, labels))
    end = states_between(velocity, z, Dopri5(TOLERANCE, TOLERANCE), 2, 2)[-1]
    torch.testing.assert_close(end, bank(pairs)["x"][::2].float(), rtol=0, atol=1e-2)
    whole = CountedField(Guided(network, labels))
    integrate(whole, z, time_grid("uniform", 1), Dopri5(TOLERANCE, TOLERANCE))
    assert pairs.metrics["nfe"] == velocity.calls > whole.calls
