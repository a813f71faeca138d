"""A student of average velocities on every coupling: trained, sampled by 1, 2 and 4 jumps, evaluated, exported."""

import numpy as np
import pytest
import torch

from flows.views.sample_request import SampleRequest
from flows.views.samples import draw
from models.load import load as load_exported
from pipeline.export import Subject, export
from pipeline.flow_matching.sampling import class_labels, starting_noise, student_samples, student_walk
from pipeline.flow_matching.solvers import SOLVERS
from pipeline.outputs import networks
from pipeline.recipe.load import load
from pipeline.recipe.sections import Sweep
from pipeline.runtime.seeds import derive
from storage.errors import InputError
from tests.pipeline.stages.test_stages import run
from tests.tiny import TINY

MEANFLOW = [
    "student.objective=meanflow",
    "reference.extractor=pixels",
    "pairs=null",
    "onestep=null",
    "evaluation.onestep=[]",
    "evaluation.student=[{solver: jump, nfe: [1, 2, 4]}, {solver: jump, nfe: [2], guidance: 2}, "
    "{solver: heun, nfe: [3]}]",
]
COUPLINGS = {
    "nfm": [],
    "nfm online": ["student.coupling={kind: nfm, online: true}"],
    "independent": ["student.coupling=independent", "teacher=null", "bank=null"],
    "ot": ["student.coupling=ot", "teacher=null", "bank=null"],
    "loom": ["student.coupling=loom", "teacher=null", "bank=null"],
    "semidiscrete": ["student.coupling=semidiscrete", "teacher=null", "bank=null", "potentials={passes: 2}"],
}


@pytest.fixture(scope="module")
def made(home):
    return run(home, *MEANFLOW)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_every_coupling_trains_a_student_that_jumps(home, made, coupling):
    brief = ["student.training.images=320"] * (coupling != "nfm")  # that of the evaluation below
    student = run(home, *MEANFLOW, *COUPLINGS[coupling], *brief, until="student")["student"]
    assert student.metrics["coupling"] == coupling.split()[0]
    network = networks.load_network(student)
    assert network.config.interval and network.config.time_scale == 16
    rows = torch.arange(6)
    z, labels = starting_noise(3, rows, (1, 8, 8)), class_labels(rows, 10)
    images = {}
    for nfe in (1, 2, 4):
        how = Sweep(solver="jump", nfe=(nfe,))
        images[nfe], calls = student_samples(network, z, labels, how, nfe)
        assert calls == nfe and images[nfe].isfinite().all()
        times, states = student_walk(network, z, labels, how, nfe)
        assert len(times) == nfe + 1 and torch.equal(states[-1], images[nfe])
    with torch.no_grad():
        over = network(z, torch.ones(6), labels, r=torch.zeros(6))
    torch.testing.assert_close(images[1], z - over)
    assert not torch.equal(images[1], student_samples(network, z, labels, Sweep(nfe=(1,)), 1)[0])  # Euler's is at r = t
    assert not torch.equal(images[1], images[2])


def test_the_evaluation_counts_jumps(made):
    scores = [score for score in made["evaluation"].metrics["scores"] if score["model"] == "student"]
    asked = [(score["solver"], score["nfe"], score["protocol"]["guidance"]) for score in scores]
    assert asked == [("jump", 1, 1), ("jump", 2, 1), ("jump", 4, 1), ("jump", 2, 2), ("heun", 3, 1)]
    assert len({score["value"] for score in scores}) == len(scores)


def test_pairs_may_be_jumps(home):
    made = run(
        home,
        *MEANFLOW[:2],
        "pairs.solver=jump",
        "pairs.nfe=2",
        "evaluation.student=[{solver: jump, nfe: [1]}]",
        until="onestep",
    )
    assert made["pairs"].metrics["nfe"] == 2
    assert made["onestep"].metrics["coupling"] == "distil"


@pytest.mark.parametrize("objective", ["flow-matching", "meanflow"])
def test_average_velocities_are_learned_on_pairs_from_the_students_weights(home, objective):
    made = run(
        home,
        f"student.objective={objective}",
        "reference.extractor=pixels",
        "onestep.mode=meanflow",
        f"pairs.dtype={'float16' if objective == 'meanflow' else 'float32'}",
        "evaluation.onestep=[{solver: jump, nfe: [1, 2, 4]}]",
        "evaluation.student=[{solver: euler, nfe: [2]}]",
    )
    scores = [score for score in made["evaluation"].metrics["scores"] if score["model"] == "onestep"]
    assert [(score["solver"], score["nfe"]) for score in scores] == [("jump", 1), ("jump", 2), ("jump", 4)]
    assert made["onestep"].metrics["coupling"] == "meanflow"
    last, student = (networks.load_network(made[name]) for name in ("onestep", "student"))
    assert last.config.interval and last.config.time_scale == 16
    assert b"error_interval" in made["onestep"].path("history.jsonl").read_bytes()
    # Few steps away from the student: the first layer has hardly moved.
    torch.testing.assert_close(last.enter.weight, student.enter.weight, atol=0.05, rtol=0)


def test_sample_jumps_unless_asked_otherwise_and_so_does_the_exported_model(home, made, tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWCTL_HOME", str(home))
    recipe = load("nfm-digits", [*TINY, *MEANFLOW])
    jumped, *_ = draw(recipe, SampleRequest("student", 2, "jump", None, None, 0, 8))
    with monkeypatch.context() as without:
        without.delitem(SOLVERS, "euler")
        images, *_ = draw(recipe, SampleRequest("student", 2, None, None, None, 0, 8))
    assert np.array_equal(images, jumped)

    subject = Subject(recipe.name, "student", None, made, recipe.evaluation.student)
    sampler = load_exported(export(subject, tmp_path / "out"))
    z = starting_noise(derive(0, "sample"), torch.arange(8), (1, 8, 8))
    way = next(i for i, way in enumerate(sampler.facts["ways"]) if (way["solver"], way["nfe"]) == ("jump", 4))
    sampler.facts["recommended"] = way
    network, classes = networks.load_network(made["student"]), class_labels(torch.arange(8), 10)
    expected, _ = student_samples(network, z, classes, Sweep(solver="jump", nfe=(4,)), 4)
    torch.testing.assert_close(sampler(z, classes), expected)


def test_a_student_of_velocities_cannot_jump(tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWCTL_HOME", str(tmp_path))
    with pytest.raises(InputError) as caught:
        draw(load("nfm-digits", TINY), SampleRequest("student", 2, "jump", None, None, 0, 8))
    assert caught.value.value == "student"
