"""The objective of a student: which other settings it goes with, and that older recipes stay what they were."""

from contextlib import nullcontext

import pytest

from pipeline.engine.dag import build
from pipeline.recipe.load import load
from pipeline.recipe.sections import FlowMatching, LogitNormalTime, MeanFlow
from storage.errors import RecipeError

MEANFLOW = "student.objective=meanflow"
JUMP = "evaluation.student=[{solver: jump, nfe: [1, 2]}]"
ROUND = (
    "reflow=[{pairs: {count: 64, solver: %s}, mix: {forward: %s}, "
    "training: {images: 256, batch: 64, lr: 0.001, ema: 64}}]"
)


def test_a_bare_name_is_that_kind_with_its_defaults():
    assert load("nfm-digits").student.objective == FlowMatching()
    objective = load("nfm-digits", [MEANFLOW, JUMP]).student.objective
    assert objective == MeanFlow(interval_share=0.25, r_time=LogitNormalTime(mean=-0.4), power=1.0, time_scale=16.0)


def test_flow_matching_by_name_changes_no_fingerprint_and_meanflow_only_what_follows_from_the_student():
    plain, named, other = (
        {name: node.fingerprint for name, node in build(load("nfm-digits", more)).items()}
        for more in ([], ["student.objective=flow-matching"], [MEANFLOW])
    )
    assert named == plain
    changed = {name for name in plain if other[name] != plain[name]}
    assert changed == {"student", "pairs", "onestep", "evaluation", "report"}


@pytest.mark.parametrize(
    "settings",
    [
        [JUMP],  # without average velocities
        ["pairs.solver=jump"],
        ["student.quality={solver: jump, nfe: 2}"],
        [MEANFLOW, "evaluation.onestep=[{solver: jump, nfe: [1]}]", "onestep.mode=reflow"],
        ["onestep.mode=meanflow", "onestep.steps=2"],
        ["onestep.mode=meanflow", "onestep.loss={kind: pseudo-huber}"],
        ["onestep.objective={kind: meanflow, power: 0.5}"],  # of a student that is distilled
        ["onestep.time={kind: u-shaped}"],
        [MEANFLOW, ROUND % ("euler", 0), "evaluation.reflow=[{solver: jump, nfe: [1]}]"],
        [MEANFLOW, ROUND % ("euler", 0), "pairs.solver=jump"],  # the round's student solves these
        [MEANFLOW, JUMP.replace("2]", "3], guidance: 2")],  # two calls each
        ["student.objective={kind: meanflow, interval_share: 1.5}"],
        ["student.objective={kind: meanflow, time_scale: 0}"],
        ["student.objective={kind: flow-matching, power: 1}"],
        ["student.objective={kind: meanflow, interval_share: 0}"],
        ["student.objective={kind: meanflow, guidance: 2}", "student.label_drop=0"],
        ["student.objective={kind: meanflow, guidance: 2}", JUMP.replace("1, 2]", "2], guidance: 2")],  # twice
        ["onestep.mode=meanflow", "onestep.objective={kind: meanflow, guidance: 2}"],  # of pairs, each with its class
        ["onestep.mode=meanflow", "onestep.objective={kind: meanflow, interval_share: 0}"],
        ["student.objective={kind: meanflow, guidance: 2}", JUMP, ROUND % ("jump", 0.5), "evaluation.reflow=[]"],
        [
            MEANFLOW,
            "onestep.mode=meanflow",
            "onestep.objective={kind: meanflow, time_scale: 4}",
        ],  # the student's is kept
    ],
)
def test_what_does_not_go_together_is_refused(settings):
    with pytest.raises(RecipeError):
        load("nfm-digits", settings)


@pytest.mark.parametrize("path", ["cond-ot", "vp", "ve"])
def test_average_velocities_are_of_the_linear_path(path):
    settings = ["student.coupling=independent", *(f"{name}=null" for name in ("teacher", "bank", "pairs", "onestep"))]
    settings += ["evaluation.onestep=[]", f"student.path={{kind: {path}}}"]
    load("nfm-digits", settings)
    with pytest.raises(RecipeError):
        load("nfm-digits", [*settings, MEANFLOW])


def test_jumps_do_not_go_from_images_to_noise():
    online = ["student.coupling=independent", "teacher=null", "bank=null", "pairs=null", "onestep=null"]
    online += ["evaluation.onestep=[]", MEANFLOW]
    load("nfm-digits", [*online, ROUND % ("jump", 0)])
    with pytest.raises(RecipeError):
        load("nfm-digits", [*online, ROUND % ("jump", 0.5)])


@pytest.mark.parametrize("solver", ["jump", "euler", "dopri5"])
def test_a_student_of_average_velocities_may_be_integrated_too(solver):
    calls = "" if solver == "dopri5" else ", nfe: [4], guidance: 2"
    load("nfm-digits", [MEANFLOW, f"evaluation.student=[{{solver: {solver}{calls}}}]", "student.label_drop=0.1"])


@pytest.mark.parametrize(
    ("how", "ends"),
    [
        ("{solver: euler, nfe: [8]}", True),
        ("{solver: midpoint, nfe: [8]}", True),
        ("{solver: heun, nfe: [7, 15]}", True),  # the last step is Euler's
        ("{solver: heun, nfe: [7, 8]}", False),
        ("{solver: rk4, nfe: [8]}", False),
        ("{solver: heun, nfe: [14], guidance: 2}", True),  # seven evaluations
        ("{solver: heun, nfe: [16], guidance: 2}", False),
    ],
)
def test_on_the_path_vp_nothing_is_evaluated_where_its_velocity_diverges(how, ends):
    settings = [f"evaluation.student=[{how}]", "student.label_drop=0.1"]
    load("fm-digits", settings)
    with nullcontext() if ends else pytest.raises(RecipeError):
        load("vp-digits", settings)


def test_nor_in_the_scores_of_its_training():
    with pytest.raises(RecipeError):
        load("vp-digits", ["student.quality={}"])
    load("vp-digits", ["student.quality={nfe: 7}"])


@pytest.mark.parametrize(
    ("solver", "more"),
    [
        ("euler, nfe: 8, temperature: 1.1", []),
        ("euler, nfe: 8, guidance: 2", ["student.label_drop=0.1"]),
        ("euler, nfe: 8", ["student.coupling={kind: loom, start: bank}"]),
    ],
)
def test_pairs_of_the_bank_are_mixed_with_generated_ones_of_the_same_noise(solver, more):
    load("nfm-digits", [ROUND % ("euler, nfe: 8", 0.1)])
    load("nfm-digits", [*more, ROUND % (solver, 0)])
    with pytest.raises(RecipeError):
        load("nfm-digits", [*more, ROUND % (solver, 0.1)])


def test_the_cost_of_the_noise_is_that_of_the_students_own():
    load("nfm-digits", ["evaluation.noise_cost=true"])
    for other in ("soften", "independent", "drop_longest"):
        with pytest.raises(RecipeError):
            load("nfm-digits", ["evaluation.noise_cost=true", f"student.coupling={{kind: nfm, {other}: 0.5}}"])


@pytest.mark.parametrize("part", ["soften", "independent", "drop_longest"])
def test_a_student_of_a_part_of_the_bank_does_not_get_the_rest_with_a_round_of_reflow(part):
    load("nfm-digits", [ROUND % ("euler, nfe: 8", 0.1)])
    with pytest.raises(RecipeError):
        load("nfm-digits", [ROUND % ("euler, nfe: 8", 0.1), f"student.coupling={{kind: nfm, {part}: 0.5}}"])


def test_decay_is_adamws():
    load("nfm-digits", ["teacher.training.optimizer=adam", "teacher.training.weight_decay=0"])
    with pytest.raises(RecipeError):
        load("nfm-digits", ["teacher.training.optimizer=adam"])
