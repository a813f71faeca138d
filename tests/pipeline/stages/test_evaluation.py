"""The evaluation of small networks: what it asks of each model, what it says of them, and that it goes on where it was
stopped."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data.levels import to_unit
from pipeline.engine.dag import build
from pipeline.engine.execute import execute
from pipeline.evaluation import scored
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.neighbours import TrainingSetNeighbours
from pipeline.evaluation.samplers import samplers
from pipeline.metrics import Moments, features, frechet_distance
from pipeline.outputs.images import images_of
from pipeline.outputs.reference import load_extractor, load_features
from pipeline.recipe.load import load
from pipeline.recipe.sections import Sweep
from pipeline.reporting.page import facts, render
from pipeline.runtime.job import Job, Progress, Saved, StopSignal, read_saved
from pipeline.stages import evaluation
from storage.checksummed_json import write_checksummed
from storage.errors import InputError, Interrupted
from storage.store import Store
from tests.tiny import TINY

METRICS = ["kid", "precision-recall", "inception-score", "sliced-wasserstein"]
SETTINGS = [
    *(line for line in TINY if line.split(".")[0] not in ("teacher", "bank")),
    "teacher=null",
    "bank=null",
    "student.coupling=independent",
    "onestep.mode=reflow",
    "student.training.averages=[{width: 0.05}]",
    "evaluation.student=[{solver: euler, grid: uniform, nfe: [2], guidance: [1, 2], "
    "ema: [null, power-0.05]}, {solver: heun, nfe: [3]}]",
    "evaluation.samples=64",
    "data.limit=100",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Everything before the evaluation; the student of the pairs stands for a round of reflow, which it is."""
    recipe, store = load("nfm-digits", SETTINGS), Store(tmp_path_factory.mktemp("store"))
    store.prepare()
    found = {}
    for name, node in build(recipe).items():
        if name == "evaluation":
            return found
        found[name] = execute(node, {role: found[role] for role in node.inputs}, store, recipe.compute).artifact


def job_of(made, work, roles=("data", "reference", "student", "onestep"), **changes):
    recipe = load("nfm-digits", SETTINGS)
    config = recipe.sections()["evaluation"].model_copy(update=changes)
    work.mkdir(parents=True, exist_ok=True)
    inputs = {role: made["onestep" if role.startswith("reflow") else role] for role in roles}
    return Job("evaluation", config, inputs, work, recipe.compute, Progress("evaluation", work))


@pytest.fixture(scope="module")
def found(made, tmp_path_factory):
    """All metrics, and a round of reflow sampled as the student is."""
    work = tmp_path_factory.mktemp("work")
    sweeps = load("nfm-digits", SETTINGS).evaluation
    job = job_of(
        made,
        work,
        ("data", "reference", "student", "reflow-1", "onestep"),
        metrics=tuple(METRICS),
        reflow=sweeps.student[:1],
    )
    return job, evaluation.run(job)


def test_every_way_has_every_metric_under_a_protocol_of_its_own(found):
    _, result = found
    first = [score for score in result.scores if score.metric == "FD-classifier"]
    asked = [("student", guidance, ema, 2.0) for ema in ("half-life-128", "power-0.05") for guidance in (1.0, 2.0)]
    assert [(s.model, s.protocol["guidance"], s.protocol["ema"], s.nfe) for s in first[:4]] == asked
    assert [(s.model, s.solver, s.nfe) for s in first[4:]] == [
        ("student", "heun", 3),
        ("reflow-1", "euler", 2),
        ("onestep", "euler", 1),
    ]
    by_way = list(zip(*[iter(result.scores)] * 8, strict=True))  # the Frechet distance and seven more
    assert len(by_way) == len(first)
    for scores in by_way:
        assert [score.metric for score in scores] == [
            "FD-classifier",
            "KD-classifier",
            "precision",
            "recall",
            "density",
            "coverage",
            "IS-classifier",
            "SW2-classifier",
        ]
        assert scores[1].error > 0 and scores[6].error > 0 and scores[0].error is None
        assert len({score.seconds for score in scores}) == 1
        far = {score.metric for score in scores if score.value_held_out is not None}
        assert far == {"FD-classifier", "KD-classifier", "SW2-classifier"} == set(result.held_out)
        assert scores[0].value_held_out != scores[0].value and scores[1].error_held_out > 0
    assert len({score.digest for score in result.scores}) == len(result.scores)
    assert set(result.floors) == {"KD-classifier", "precision", "recall", "density", "coverage", "SW2-classifier"}


def test_the_other_metrics_change_neither_the_distance_nor_what_tables_share(made, found, tmp_path):
    alone = evaluation.run(job_of(made, tmp_path / "work"))
    _, result = found
    assert alone.protocol == result.protocol and alone.floors == {}
    kept = [score for score in result.scores if score.metric == "FD-classifier" and score.model != "reflow-1"]
    assert [score.value for score in alone.scores] == [score.value for score in kept]
    assert [score.digest for score in alone.scores] == [score.digest for score in kept]


def test_small_sets_are_warned_of_and_the_floor_stands_beside(made, found):
    _, result = found
    assert result.floor == made["reference"].metrics["split_half"]
    assert result.held_out["FD-classifier"] == made["reference"].metrics["held_out"]
    assert set(evaluation.frechet_warnings(64, 64)) <= set(result.warnings)
    assert [len(evaluation.frechet_warnings(n, 64)) for n in (64, 65, 10_000)] == [2, 1, 0]


def test_paths_and_copies_are_measured_of_each_model(found):
    _, result = found
    assert [path.model for path in result.paths] == ["student", "reflow-1"]
    assert result.curvature == result.paths[0].curvature > 0 and result.paths[1].straightness > 0
    assert [item.model for item in result.memorisation] == ["student", "reflow-1", "onestep"]
    for item in result.memorisation:
        assert (item.generated, item.train, item.real) == (64, 100, 100) and 0 < item.near < item.held_out[1]
        scores = [score for score in result.scores if (score.model, score.metric) == (item.model, "FD-classifier")]
        assert item.nfe == min(scores, key=lambda score: score.value).nfe


def test_a_round_that_made_it_worse_is_said_so(found):
    _, result = found
    before, after = (path.straightness for path in result.paths)
    was, is_now = (
        min(s.value for s in result.scores if (s.model, s.metric, s.nfe) == (model, "FD-classifier", 2))
        for model in ("student", "reflow-1")
    )
    said = [text for text in result.warnings if "after 1 round of reflow is worse than the student:" in text]
    assert len(said) == (after > before or is_now > was)


def test_pictures_and_numbers_are_there_and_the_page_shows_them(made, found):
    job, result = found
    for name in ("samples", "trajectories", "interpolations", "neighbours"):
        assert min(Image.open(job.out / f"{name}.png").size) > 200
    written = json.loads((job.out / evaluation.SCORES).read_text())
    assert [score["digest"] for score in written] == [score.digest for score in result.scores]


def test_a_stopped_evaluation_resumes_to_the_same_numbers(made, found, tmp_path, monkeypatch):
    _, whole = found
    scenarios = [("scores", 2), ("scores", 7), *(("figures", number) for number in (1, 4, 6, 9))]
    more = job_of(
        made, tmp_path / "work", tuple(found[0].inputs), metrics=found[0].config.metrics, reflow=found[0].config.reflow
    )
    for unit, done in scenarios:  # one run, stopped again and again
        stop = StopSignal()

        def at(report, unit=unit, done=done, stop=stop):
            if (report.unit, report.done) == (unit, done):
                stop.request("Ctrl-C")

        more.progress.listeners, more.progress.INTERVAL = (at,), 0.0
        with pytest.raises(Interrupted):
            evaluation.run(replace(more, stop=stop))
        assert read_saved(more.work) == Saved(done, {"scores": 7, "figures": 10}[unit], unit)
    monkeypatch.setattr(Evaluator, "score", None)  # nothing is sampled again
    monkeypatch.setattr(TrainingSetNeighbours, "nearest", None)
    again = evaluation.run(more)
    assert [(s.digest, s.value) for s in again.scores] == [(s.digest, s.value) for s in whole.scores]
    assert again.memorisation == whole.memorisation and again.paths == whole.paths
    for name in evaluation.PICTURES:
        assert (more.out / f"{name}.png").read_bytes() == (found[0].out / f"{name}.png").read_bytes()


@pytest.mark.parametrize("unit", ["samples", "training images compared"])
def test_a_stop_is_heard_within_a_score_and_a_search(made, tmp_path, unit):
    stop = StopSignal()
    job = replace(job_of(made, tmp_path / "work"), stop=stop)
    job.progress.listeners, job.progress.INTERVAL = (
        (lambda report: stop.request("SIGTERM") if report.unit == unit else None,),
        0.0,
    )
    with pytest.raises(Interrupted):
        evaluation.run(job)


def test_the_compared_samples_are_those_that_were_scored(made, tmp_path):
    job = job_of(made, tmp_path / "work")
    result = evaluation.run(job)
    extractor = load_extractor(made["reference"], images_of(job).originals, torch.device("cpu"))
    real = load_features(made["reference"], "train").moments
    first = [score for score in result.scores if score.metric == "FD-classifier"]
    for number, score in enumerate(first):
        levels = np.load(job.work / f"samples-{number}.npy")
        stored = torch.from_numpy(to_unit(levels, 17))
        distance = frechet_distance(real, Moments.of(features(extractor, stored)))
        assert len(stored) == 64 and distance == pytest.approx(score.value, rel=1e-4)


@pytest.mark.parametrize("text", ["5", "[]", "[[5]]", "{}", '{"scores": [[]], "checksum": "0"}', '{"torn'])
def test_scores_that_are_none_are_measured_again(tmp_path, text):
    job = Job("evaluation", None, {}, tmp_path, None, None)
    (tmp_path / scored.SCORES).write_text(text)
    assert scored._finished(job) == []


def test_scores_count_up_to_the_first_whose_samples_are_damaged(found, tmp_path):
    job, (score, *_) = Job("evaluation", None, {}, tmp_path, None, None), found[1].scores
    digests = [
        scored._write_samples(tmp_path / f"samples-{number}.npy", torch.full((2, 1, 8, 8), -1.0), 17)
        for number in range(3)
    ]
    write_checksummed(tmp_path / scored.SCORES, {"scores": [[score.model_dump(mode="json")]] * 3, "samples": digests})
    assert scored._finished(job) == [((score,), digest) for digest in digests]
    flipped = bytearray((tmp_path / "samples-1.npy").read_bytes())
    flipped[-1] ^= 1
    (tmp_path / "samples-1.npy").write_bytes(flipped)
    assert scored._finished(job) == [((score,), digests[0])]
    (tmp_path / "samples-0.npy").unlink()
    assert scored._finished(job) == []


def test_a_flipped_digit_of_a_score_is_not_believed(found, tmp_path):
    job, (score, *_) = Job("evaluation", None, {}, tmp_path, None, None), found[1].scores
    write_checksummed(tmp_path / scored.SCORES, {"scores": [[score.model_dump(mode="json")]], "samples": [""]})
    text = (tmp_path / scored.SCORES).read_text()
    (tmp_path / scored.SCORES).write_text(text.replace('"value": ', '"value": 1', 1))
    assert scored._finished(job) == []


def test_pixels_have_no_inception_score(made, tmp_path, monkeypatch):
    job = job_of(made, tmp_path / "work", metrics=("inception-score",))
    pixels = made["reference"].model_copy(update={"metrics": made["reference"].metrics | {"metric": "FD-pixels"}})
    monkeypatch.setitem(job.inputs, "reference", pixels)
    monkeypatch.setattr(evaluation, "load_extractor", lambda *given: torch.nn.Identity())  # which knows no classes
    with pytest.raises(InputError, match=r"evaluation\.metrics"):
        evaluation._evaluator(job, images_of(job), None, None, torch.device("cpu"))


def test_the_page_of_such_an_evaluation(made, found, tmp_path):
    from tests.pipeline.reporting.finished import artifact

    job, result = found
    files = {path.name: path.read_bytes() for path in job.out.glob("*.png")}
    inputs = {role: made[role] for role in ("data", "reference", "student", "pairs")}
    inputs |= {"pairs-1": made["pairs"], "reflow-1": made["onestep"], "onestep": made["onestep"]}
    inputs["evaluation"] = artifact(tmp_path, "evaluation", "tiny", result, files=files)
    text = render(inputs)
    for words in (
        "Rounds of reflow",
        "student after 1 round of reflow",
        "Other metrics of the same samples",
        "KD-classifier",
        "Cost of an image",
        "Sampling paths",
        "Memorisation",
        "Recall of two halves of the training images",
    ):
        assert words in text, words
    assert text.count("data:image/png") == 4 + 2  # the student's strip over its training
    told = facts(inputs)
    assert told["paths"][1]["model"] == "reflow-1" and told["floors"] == result.floors


def test_a_score_states_the_batch_where_its_solver_chooses_steps_for_it(made, tmp_path):
    sweeps = (Sweep(solver="dopri5"), Sweep(solver="heun", nfe=(3,)))
    job = job_of(made, tmp_path, student=sweeps, onestep=(), teacher=False)
    batches = [way.facts.get("sampled_together") for way in samplers(job, None, None, torch.device("cpu"))]
    assert batches == [job.compute.inference_batch, None]
