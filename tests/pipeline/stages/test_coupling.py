"""Every coupling that a recipe can name trains a student, through the stages that it needs."""

import json

import pytest
import torch

from pipeline.couplings import Banked, Online, Standard
from pipeline.data.examples import Examples
from pipeline.outputs import networks
from pipeline.outputs.images import IMAGES
from pipeline.outputs.whitening import standard_of
from pipeline.recipe.load import load
from pipeline.runtime.job import Job, Progress, StopSignal
from pipeline.stages._coupling import coupling_of_config
from pipeline.training.checkpoint import load_checkpoint
from pipeline.training.truncated import RETAINED, load_retained
from storage.bank import Bank
from storage.errors import InputError, Interrupted
from storage.imageset import ImageSet
from tests.pipeline.stages.test_stages import run
from tests.tiny import TINY

ALONE = ["teacher=null", "bank=null", "pairs=null", "onestep=null", "evaluation.onestep=[]"]
BRIEF = "student.training.images=320"


@pytest.mark.parametrize(
    ("coupling", "more"),
    [
        ("independent", ALONE),
        ("{kind: ot, batch: 128}", ALONE),
        ("entropic", ALONE),
        ("{kind: loom, noises_per_image: 2}", ALONE),
        ("{kind: loom, refine: before, epochs: 5}", ALONE),
        ("{kind: loom, refine: never}", ALONE),
        ("{kind: loom, interpolate: 0.8}", ALONE),
        ("semidiscrete", [*ALONE, "potentials={passes: 2, within_classes: false}"]),
        ("{kind: ot, within_classes: false}", ALONE),
        ("{kind: loom, start: bank}", []),
        ("{kind: nfm, independent: 0.2, soften: 0.4, drop_longest: 0.1}", []),
        ("{kind: nfm, online: true}", []),
    ],
)
def test_every_coupling_trains_a_student(home, coupling, more):
    made = run(home, *more, BRIEF, f"student.coupling={coupling}", until="student")
    student = made["student"]
    assert student.metrics["coupling"] in coupling
    assert 0 < student.metrics["transport_cost"] < 3
    if "drop_longest" in coupling:
        left_out = student.metrics["truncation"]
        assert (left_out["pairs"], left_out["dropped"]) == (400, 40) and sum(left_out["dropped_by_class"]) == 40
        assert len(load_retained(student.path(RETAINED))) == 360
    if "loom" in coupling and "never" not in coupling and "bank" not in coupling:  # a teacher's noises rest
        name = "refinement.json" if "before" in coupling else "epochs.json"
        assert sum(line["reassigned"] for line in json.loads(student.path(name).read_bytes())) > 0
    if "before" in coupling:  # the training changes nothing more, and does not count what was changed before it
        assert {line["reassigned"] for line in json.loads(student.path("epochs.json").read_bytes())} == {0.0}


def test_closer_couplings_have_smaller_transport_costs(home):
    def cost(coupling, *more):
        made = run(home, *ALONE, *more, BRIEF, f"student.coupling={coupling}", until="student")
        return made["student"].metrics["transport_cost"]

    independent, ot = cost("independent"), cost("{kind: ot, batch: 128}")
    assert ot < 0.95 * independent and cost("semidiscrete", "potentials={passes: 2}") < ot
    assert cost("{kind: loom, refine: before, epochs: 5}") < ot


def a_job(made, coupling, **changes) -> Job:
    alone = ALONE if "loom" in coupling else []
    config = load("nfm-digits", [*TINY, *alone, f"student.coupling={coupling}"]).sections()["student"]
    work = changes.pop("work", made["student"].root)
    return Job("student", config, made, work, load("nfm-digits").compute, Progress("student", work), **changes)


def test_online_and_banked_noise_have_one_distribution(home):
    """The same teacher and the same sigma_f: over the whole set, their moments agree."""
    made = run(home, until="student")
    images = ImageSet.open(made["data"].path(IMAGES))
    examples = Examples.of(images)
    rows = torch.arange(len(examples))
    x, labels = examples.pixels(rows), examples.classes(rows)
    online = coupling_of_config(a_job(made, "{kind: nfm, online: true}"), examples, torch.device("cpu"))
    banked = coupling_of_config(a_job(made, "nfm"), examples, torch.device("cpu"))
    assert isinstance(online, Online) and isinstance(banked, Banked)
    ours, theirs = (
        torch.stack([c.noise_for(x, labels, rows, torch.Generator().manual_seed(s)) for s in range(4)])
        for c in (online, banked)
    )
    assert not torch.equal(ours[0], ours[1])  # fresh noise at each visit
    assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.01)
    torch.testing.assert_close(ours.mean((0, 1)), theirs.mean((0, 1)), atol=0.2, rtol=0)
    images_of = [part.mean(0).flatten() for part in (ours, theirs)]  # each image has its own noise in both
    assert torch.corrcoef(torch.stack(images_of))[0, 1] > 0.8


def test_online_noise_is_whitened_as_the_bank_is(home):
    plain, white = run(home, until="student"), run(home, "bank.whiten=true", until="student")
    examples = Examples.of(ImageSet.open(plain["data"].path(IMAGES)))
    rows = torch.arange(len(examples))
    x, labels = examples.pixels(rows), examples.classes(rows)
    theirs, ours = (
        coupling_of_config(a_job(made, "{kind: nfm, online: true}"), examples, torch.device("cpu")).noise_for(
            x, labels, rows, torch.Generator().manual_seed(0)
        )
        for made in (plain, white)
    )
    whitening = standard_of(white["bank"], torch.device("cpu")).whitening
    torch.testing.assert_close(ours, whitening(theirs, labels), atol=1e-4, rtol=1e-4)
    assert (ours - theirs).abs().mean() > 0.1


def test_online_ranks_encode_their_parts(home):
    made = run(home, until="student")
    teacher = networks.load_network(made["teacher"])
    facts = Bank.open(made["bank"].path("bank.zarr")).facts
    x, labels = torch.rand(8, 1, 8, 8) * 2 - 1, torch.arange(8)

    def pair(*place):
        return Online(teacher, 0.2, Standard(facts.sigma_f), *place).noise_for(
            x, labels, labels, torch.Generator().manual_seed(0)
        )

    whole, first, second = pair(), pair(0, 2), pair(1, 2)
    torch.testing.assert_close(torch.cat([first[:4], second[4:]]), whole, atol=1e-5, rtol=1e-5)
    assert not first[4:].any() and not second[:4].any()


def test_a_refinement_that_is_stopped_goes_on_to_the_same_assignment(home, tmp_path):
    made = run(home, until="student")
    images = ImageSet.open(made["data"].path(IMAGES))
    examples = Examples.of(images)
    wish, cpu = "{kind: loom, refine: before, epochs: 5, tolerance: 1.0e-9}", torch.device("cpu")

    def states(name: str, stops: int):
        for _ in range(stops):
            task = a_job(made, wish, work=tmp_path / name, stop=StopSignal())
            task.work.mkdir(exist_ok=True)
            task.stop.request("test")
            with pytest.raises(Interrupted):
                coupling_of_config(task, examples, cpu)
        task = a_job(made, wish, work=tmp_path / name)
        return coupling_of_config(task, examples, cpu).state()["tau"], load_checkpoint(task.work / "refinement")[1]

    (tau, history), (other, again) = states("a", 0), states("b", 3)
    assert torch.equal(tau, other) and history == again and len(history["history"]) == 5


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("student.coupling=semidiscrete", "does not use a teacher"),
        ("student.coupling=ot", "does not use a teacher"),
        ("potentials={}", "go together"),
        ("student.coupling={kind: loom, start: bank, noises_per_image: 2}", "leave noises_per_image out"),
        ("student.path={kind: vp}", "set student.coupling to independent"),
        ("student.coupling={kind: lom}", "coupling"),
        ("student.coupling={kind: loom, noise_per_image: 2}", "Did you mean 'noises_per_image'"),
        ("compute.nproc=3", "divisible by their product"),
        ("compute.nnodes=2", "place to meet"),
        ("evaluation.student=[{nfe: [1], ema: power-0.05}]", "name it in training.averages"),
    ],
)
def test_what_cannot_go_together_is_refused_before_any_work(override, words):
    with pytest.raises(InputError, match=words):
        load("nfm-digits", [override])


def test_a_transformer_with_several_averages_is_trained_and_measured(home):
    made = run(
        home,
        *ALONE,
        "student.coupling=independent",
        "evaluation.likelihood=null",
        "student.network={kind: dit, patch: 2, width: 16, depth: 2, heads: 2}",
        "student.training.averages=[{width: 0.1}, {images: 20}]",
        "evaluation.student=[{nfe: [2]}, {nfe: [2], ema: power-0.1}, {nfe: [2], ema: half-life-20}]",
    )
    student, scores = made["student"], made["evaluation"].metrics["scores"]
    assert networks.load_network(student).config.depth == 2
    assert [score["protocol"]["ema"] for score in scores] == ["half-life-128", "power-0.1", "half-life-20"]
    assert len({score["value"] for score in scores}) == 3
    with pytest.raises(InputError, match=r"There are: half-life-20, power-0\.1"):
        networks.load_network(student, average="power-0.2")
