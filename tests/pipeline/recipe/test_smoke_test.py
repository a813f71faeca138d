"""The smoke test of a recipe: every stage and solver, with the least work that each can do."""

import pytest

from pipeline.cost.fitting import check_fit
from pipeline.cost.image_shape import ImageShape
from pipeline.engine import dag
from pipeline.recipe.load import load
from pipeline.recipe.recipe import Recipe
from pipeline.recipe.smoke_test import reduced

ROUND = "{pairs: {count: 100, nfe: 4}, training: {images: 1280, batch: 64, lr: 1.0e-3, ema: 100}}"


def test_each_round_is_rehearsed():
    made = load("nfm-digits", [f"reflow=[{ROUND}, {ROUND}]", "evaluation.reflow=[{grid: uniform, nfe: [1, 4]}]"])
    small = reduced(made)
    assert list(dag.build(small)) == list(dag.build(made))
    assert [(this.pairs.count, this.pairs.nfe, this.training.images) for this in small.reflow] == [(32, 1, 4)] * 2
    assert small.evaluation.reflow[0].nfe == (1,)


SAMPLERS = "[{solver: dopri5}, {solver: heun, nfe: [4, 8]}]"


@pytest.mark.parametrize("section", ["student", "reflow", "onestep"])
def test_each_solver_is_rehearsed_also_one_that_chooses_its_calls(section):
    rounds = [f"reflow=[{ROUND}]", "onestep.mode=reflow"]
    small = reduced(load("nfm-digits", [*rounds, f"evaluation.{section}={SAMPLERS}"]))
    assert [(sweep.solver, sweep.nfe) for sweep in getattr(small.evaluation, section)] == [
        ("dopri5", ()),
        ("heun", (2,)),
    ]
    assert Recipe.model_validate(small.model_dump()) == small


def test_a_rehearsal_has_images_for_each_metric():
    asked = load("nfm-digits", ["evaluation.metrics=[kid, precision-recall, inception-score, sliced-wasserstein]"])
    small = reduced(asked)
    shape = ImageShape(small.data.limit, small.data.limit, 1, 8, ("",) * 10)
    check_fit(dag.build(small)["evaluation"], shape)


def test_a_rehearsal_has_images_for_all_processes_and_whole_batches_where_that_is_asked():
    made = load("nfm-digits", ["compute.nproc=8", "teacher.training.accumulate=2"])
    assert reduced(made).teacher.training.batch % 8 == 0 == reduced(made).student.training.batch % 8
    whole = reduced(made, whole_batches=True)
    for section, full in ((whole.teacher, made.teacher), (whole.student, made.student), (whole.onestep, made.onestep)):
        assert section.training.images == section.training.batch == full.training.batch
        assert section.training.accumulate == full.training.accumulate and section.training.steps == 1
    assert whole.evaluation.samples == whole.pairs.count == made.compute.inference_batch
    assert whole.data.limit >= max(made.teacher.training.batch, made.student.training.batch)
    assert Recipe.model_validate(whole.model_dump()) == whole


def test_k_steps_are_rehearsed_with_calls_that_pass_their_times():
    made = load(
        "nfm-digits",
        ["onestep.steps=4", "evaluation.onestep=[{grid: uniform, nfe: [4]}]", "pairs.solver=heun", "pairs.nfe=16"],
    )
    assert reduced(made).pairs.nfe == 8 and reduced(made).onestep.steps == 4


def test_a_rehearsal_has_calls_and_samples_enough_for_guidance_and_kid():
    made = load(
        "nfm-digits",
        [
            "evaluation.student=[{solver: heun, nfe: [12], guidance: 2.0}]",
            "evaluation.metrics=[kid]",
            "pairs.guidance=2.0",
        ],
    )
    small = reduced(made)
    assert Recipe.model_validate(small.model_dump()).evaluation.student[0].nfe == (4,)
    assert small.pairs.nfe == 2 and small.evaluation.samples >= 20


@pytest.mark.parametrize(
    ("quality", "nfe"), [("{solver: rk4, nfe: 8, guidance: 2}", 8), ("{solver: dopri5, nfe: null}", None), ("null", 0)]
)
def test_a_smoke_test_has_few_samples_by_the_fewest_calls(quality, nfe):
    small = reduced(load("nfm-digits", [f"student.quality={quality}"])).student.quality
    assert small is None if quality == "null" else (small.samples, small.nfe) == (32, nfe)
