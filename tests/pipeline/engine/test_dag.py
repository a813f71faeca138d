"""Which stages a recipe with rounds of reflow has, what each reads, and that recipes without are as they were."""

import pytest

from pipeline.cost.estimate import estimate
from pipeline.engine import dag
from pipeline.engine.plan import plan
from pipeline.outputs.results import ReflowResult
from pipeline.recipe.load import load
from pipeline.recipe.sections import OneStep, Pairs, Reflow
from pipeline.reporting.diff import of_recipe
from pipeline.reporting.diff._stages import stage_pairs
from storage.errors import InputError
from storage.store import Store

TRAINING = "training: {images: 1280, batch: 64, lr: 1.0e-3, ema: 100}"
ROUND = f"{{pairs: {{count: 100, nfe: 4}}, {TRAINING}}}"
MIXED = f"{{pairs: {{count: 100, nfe: 4}}, mix: {{forward: 0.25}}, {TRAINING}}}"
TWO_ROUNDS = [
    *("data", "reference", "teacher", "bank", "student", "pairs-1", "reflow-1", "pairs-2", "reflow-2"),
    *("pairs", "onestep", "evaluation", "report"),
]
ALONE = ["student.coupling=independent", "teacher=null", "bank=null"]


def recipe(*rounds: str, overrides=()):
    return load("nfm-digits", [f"reflow=[{', '.join(rounds)}]", *overrides])


def nodes(*rounds: str, overrides=()):
    return dag.build(recipe(*rounds, overrides=overrides))


def test_fingerprints_without_rounds_are_frozen():
    """Banks and students of older versions are found: a change here orphans all of them."""
    even = load("nfm-digits", ["teacher.blocks=8", "teacher.layers=1", "bank.whiten=false", "pairs.temperature=1.0"])
    found = {name: node.fingerprint[:12] for name, node in dag.build(even).items()}
    assert {name: found[name] for name in ("student", "pairs", "onestep")} == {
        "student": "c10c71d85107",
        "pairs": "5df60ae3e7fd",
        "onestep": "7ac3e76d9090",
    }


def test_a_limit_that_chooses_other_images_than_before_makes_new_results_and_no_limit_does_not():
    whole, limited = (dag.build(load("nfm-digits", settings))["data"] for settings in ([], ["data.limit=100"]))
    assert (whole.stage.version, limited.stage.version) == (1, 2)


@pytest.mark.parametrize(
    ("stage", "settings", "versions"),
    [
        ("evaluation", ["evaluation.teacher=false"], (6, 5)),
        ("pairs", ["pairs.solver=dopri5", "pairs.nfe=null", "onestep.steps=2", "evaluation.onestep=[]"], (1, 2)),
    ],
)
def test_a_stage_is_new_where_what_it_measures_changed_and_only_there(stage, settings, versions):
    assert tuple(dag.build(load("nfm-digits", more))[stage].stage.version for more in ([], settings)) == versions


def test_two_rounds_lie_between_the_student_and_its_distillation():
    found = nodes(ROUND, MIXED)
    assert list(found) == TWO_ROUNDS
    reads = {name: set(node.inputs) for name, node in found.items()}
    assert reads["pairs-1"] == {"data", "student"} and reads["reflow-1"] == {"data", "student", "pairs-1"}
    assert reads["pairs-2"] == {"data", "reflow-1"}
    assert reads["reflow-2"] == {"data", "reflow-1", "pairs-2", "bank"}  # whose pairs it mixes in
    assert reads["pairs"] == {"data", "reflow-2"} and reads["onestep"] == {"data", "reflow-2", "pairs"}
    assert reads["evaluation"] == {"data", "reference", "teacher", "student", "reflow-1", "reflow-2", "onestep"}
    assert reads["report"] == set(found) - {"report"}
    assert [node.inputs.keys() <= set(list(found)[:place]) for place, node in enumerate(found.values())] == [True] * 13
    assert {node.stage.kind for node in found.values()} == set(found) - {
        "pairs-1",
        "pairs-2",
        "reflow-1",
        "reflow-2",
    } | {"reflow"}
    assert found["reflow-2"].stage.result is ReflowResult
    assert isinstance(found["reflow-2"].config, Reflow) and found["reflow-2"].config.seed == 0
    assert isinstance(found["pairs-2"].config, Pairs) and found["pairs-2"].config.seed == 0


def test_a_round_changes_only_what_comes_after_it():
    one, two = nodes(ROUND), nodes(ROUND, MIXED)
    same = [name for name in one if one[name].fingerprint == two[name].fingerprint]
    assert same == ["data", "reference", "teacher", "bank", "student", "pairs-1", "reflow-1"]
    assert one["student"].fingerprint == nodes()["student"].fingerprint
    assert two["pairs-1"].fingerprint != two["pairs-2"].fingerprint


def test_what_pairs_are_for_is_part_of_what_they_are():
    plain, mixed = nodes(ROUND, overrides=ALONE), nodes(MIXED, overrides=ALONE)
    assert mixed["pairs-1"].config.forward is True  # without a bank, the student's own ODE makes them
    assert mixed["pairs-1"].fingerprint != plain["pairs-1"].fingerprint
    assert nodes(MIXED)["pairs-1"].fingerprint == nodes(ROUND)["pairs-1"].fingerprint

    several = nodes(overrides=["onestep.steps=4", "evaluation.onestep=[{grid: uniform, nfe: [4]}]"])
    assert several["pairs"].config.intervals == 4
    assert several["pairs"].fingerprint != nodes()["pairs"].fingerprint


def test_pairs_of_a_round_start_from_the_source_where_there_is_one():
    found = dag.build(load("data-to-data", [f"reflow=[{MIXED}]"]))
    assert set(found["pairs-1"].inputs) == {"data", "source", "student"} and found["pairs-1"].config.forward
    with pytest.raises(InputError, match="no temperature"):
        load("data-to-data", ["evaluation.student=[{nfe: [2], temperature: 1.1}]"])
    with pytest.raises(InputError, match="pairs hold no conditions"):
        load("sr-digits", [f"reflow=[{ROUND}]"])


def test_settings_of_its_own_kind_at_their_defaults_are_no_settings():
    base = dict(training=load("nfm-digits").onestep.training, seed=0)
    old = dag.fingerprint("onestep", 1, OneStep(mode="distil", **base), {})
    assert old == dag.fingerprint("onestep", 1, OneStep(mode="distil", steps=1, loss={"kind": "l2"}, **base), {})
    assert old != dag.fingerprint("onestep", 1, OneStep(mode="distil", loss={"kind": "pseudo-huber"}, **base), {})
    pairs = dict(count=10, seed=0)
    explicit = Pairs(intervals=1, forward=False, **pairs)
    assert dag.fingerprint("pairs", 1, Pairs(**pairs), {}) == dag.fingerprint("pairs", 1, explicit, {})


def test_a_temperature_changes_what_is_sampled_and_1_is_as_before():
    base = ["evaluation.student=[{nfe: [1, 2]}]", "pairs.temperature=1.0"]
    plain = nodes(overrides=base)
    hot = nodes(overrides=[*base, "pairs.temperature=1.1", "evaluation.student=[{nfe: [1, 2], temperature: [1, 1.1]}]"])
    assert [sweep.temperature for sweep in hot["evaluation"].config.student] == [1, 1.1]
    changed = [name for name in plain if plain[name].fingerprint != hot[name].fingerprint]
    assert changed == ["pairs", "onestep", "evaluation", "report"]
    without = Pairs.model_validate({"count": 12000, "seed": 0})
    assert dag.fingerprint("pairs", 1, without, {}) == dag.fingerprint(
        "pairs", 1, Pairs(count=12000, seed=0, temperature=1), {}
    )


def test_stages_by_name():
    assert dag.stage_named("reflow-3").module().__name__ == "pipeline.stages.reflow"
    assert dag.stage_named("pairs").module() is dag.stage_named("pairs-9").module()
    assert dag.stage_named("source").module() is dag.stage_named("data").module()
    for unknown in ("reflow-10", "reflow-0", "reflow"):
        with pytest.raises(KeyError):
            dag.stage_named(unknown)
    roles = ["reflow-2", "onestep", "reflow-1", "student", "pairs-1", "reflow-x"]
    assert dag.students_among(roles) == ["student", "reflow-1", "reflow-2"] and dag.last_student(roles) == "reflow-2"
    assert dag.students_among(["data"]) == []
    assert [name for name in dag.NAMES if name in nodes(ROUND, ROUND)] == list(nodes(ROUND, ROUND))


def test_lpips_reads_its_weights_from_outside_the_store(tmp_path):
    (tmp_path / "vgg16.pth").write_bytes(b"a")
    (tmp_path / "vgg.pth").write_bytes(b"b")
    loss = f"onestep.loss={{kind: lpips-huber, features: {tmp_path}/vgg16.pth, linear: {tmp_path}/vgg.pth}}"
    first = nodes(overrides=[loss])["onestep"].fingerprint
    (tmp_path / "vgg16.pth").rename(tmp_path / "moved.pth")
    assert nodes(overrides=[loss.replace("vgg16", "moved")])["onestep"].fingerprint == first  # its content counts
    (tmp_path / "vgg.pth").write_bytes(b"c")
    assert nodes(overrides=[loss.replace("vgg16", "moved")])["onestep"].fingerprint != first
    with pytest.raises(InputError, match=r"vgg16\.pth"):
        nodes(overrides=[loss])


def test_plan_estimate_rehearsal_and_diff_know_rounds(tmp_path):
    store = Store(tmp_path)
    store.prepare()
    made = recipe(ROUND, MIXED, overrides=["evaluation.reflow=[{grid: uniform, nfe: [1, 4]}]"])
    found = dag.build(made)
    assert [(step.node.name, step.action) for step in plan(found, store)] == [(name, "run") for name in found]
    student, figures = estimate(found["student"]), estimate(found["reflow-2"])
    assert (figures.parameters, figures.steps) == (student.parameters, 20)
    assert estimate(found["pairs-2"]).disk_bytes == 2 * 100 * 64 * 4

    pairs = stage_pairs(of_recipe(recipe(ROUND), store), of_recipe(made, store))
    assert [pair.stage for pair in pairs] == list(found)
    alone = [pair.stage for pair in pairs if pair.why == ("B alone has it",)]
    assert alone == ["pairs-2", "reflow-2"]


@pytest.mark.parametrize("stage", ["teacher", "student"])
def test_the_estimate_counts_each_copy_of_the_weights(stage):
    """In memory the weights, their gradient, two moments and the average; on disk two checkpoints, without gradients.

    What autograd keeps grows with the batch. At a batch of 0 copies are left, and masks and views of weights."""

    def at(batch, averages="[]", quality="null"):
        asked = [f"{stage}.training.batch={batch}", f"{stage}.training.averages={averages}"]
        asked.append(f"{stage}.quality={quality}")
        return estimate(dag.build(load("nfm-digits", asked))[stage])

    small, large, more = at(4), at(8), at(4, "[{width: 0.1}]")
    copies = (2 * small.memory_bytes - large.memory_bytes) / (4 * small.parameters)
    assert 5 <= copies < 7
    assert more.memory_bytes - small.memory_bytes == 4 * small.parameters
    assert small.disk_bytes == 2 * 4 * 4 * small.parameters
    assert (
        more.disk_bytes - small.disk_bytes
        == 2 * 4 * small.parameters
        == at(4, quality="{}").disk_bytes - small.disk_bytes
    )


def test_each_process_holds_its_share_of_a_batch():
    found = dag.build(load("nfm-digits"))
    for stage in ("teacher", "onestep"):
        half, whole = (estimate(found[stage], processes=processes) for processes in (2, 1))
        cut = dag.build(load("nfm-digits", [f"{stage}.training.batch={found[stage].config.training.batch // 2}"]))
        assert half.memory_bytes == estimate(cut[stage]).memory_bytes < whole.memory_bytes
        assert (half.parameters, half.steps, half.disk_bytes) == (whole.parameters, whole.steps, whole.disk_bytes)


@pytest.mark.parametrize("flips, rows", [(True, 100_000), pytest.param(False, 50_000, marks=pytest.mark.slow)])
def test_semidiscrete_transport_holds_every_image_and_mirror_image_on_the_device(flips, rows):
    semidiscrete, independent = (dag.build(load(f"{kind}-cifar10", [f"data.flips={flips}"])) for kind in ("sd", "fm"))
    points = 4 * rows * 3 * 32 * 32
    assert estimate(semidiscrete["potentials"]).memory_bytes == points
    students = (estimate(found["student"]).memory_bytes for found in (semidiscrete, independent))
    assert next(students) - next(students) == points


@pytest.mark.parametrize("network", ["vgg", "alex"])
def test_the_memory_of_lpips_is_estimated_without_its_weights(tmp_path, network):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"")
    loss = f"onestep.loss={{kind: lpips-huber, network: {network}, features: {tmp_path}/a, linear: {tmp_path}/b}}"
    plain, perceptual = (estimate(nodes(overrides=overrides)["onestep"]) for overrides in ([], [loss]))
    assert perceptual.parameters == plain.parameters  # it is not trained
    first = 64 * 4 * (224**2 if network == "vgg" else 55**2)  # bytes of its first layer's features of one image
    assert perceptual.memory_bytes > plain.memory_bytes + 128 * first


@pytest.mark.parametrize(
    ("overrides", "rule"),
    [
        (
            [*ALONE, "student.path={kind: vp}", f"reflow=[{ROUND}]", "pairs=null", "onestep=null"],
            "on the linear path can",
        ),
        (["onestep.steps=3"], "multiple of 3"),
        (["onestep.steps=2", "pairs.grid=quadratic"], r"pairs\.grid to uniform"),
        (["onestep.steps=2", "pairs.solver=rk4", "pairs.guidance=2.0"], "multiple of 16"),
        (["onestep.steps=2", "onestep.mode=reflow"], "mode to distil"),
        (["evaluation.onestep=[{grid: uniform, nfe: [1, 2]}]"], r"evaluation.onestep.*nfe: \[1\]"),
        (["evaluation.onestep=[{solver: heun, grid: uniform, nfe: [1]}]"], "evaluation.onestep"),
        (
            ["onestep.steps=2", "evaluation.onestep=[{grid: quadratic, nfe: [2]}]"],
            r"evaluation.onestep.*uniform, nfe: \[2\]",
        ),
        (["evaluation.onestep=[{nfe: [2], guidance: 2}]", "onestep.mode=reflow"], "set guidance to 1"),
        ([f"reflow=[{ROUND}]", "pairs.guidance=2.0"], "set guidance to 1"),
        ([f"reflow=[{ROUND}]", "evaluation.reflow=[{nfe: [2], guidance: 2}]"], "set guidance to 1"),
        (["student.label_drop=0", "evaluation.student=[{nfe: [2], guidance: 2}]"], r"label_drop above 0"),
        (["student.label_drop=0", "pairs.guidance=2.0"], r"label_drop above 0"),
        (["pairs.temperature=0"], "temperature"),
        (["pairs.solver=dopri5"], "null for dopri5"),
        (["pairs.nfe=null"], "null for dopri5"),
        (["evaluation.reflow=[{nfe: [1]}]"], "section reflow"),
        (["reflow=[{training: {images: 10, batch: 4, lr: 0.1, ema: 3}}]"], r"pairs"),
        ([f"reflow=[{ROUND}]", "evaluation.reflow=[{nfe: [1], ema: power-0.1}]"], "power-0.1"),
        ([*ALONE, f"reflow=[{ROUND}]", "student.training.batch=129", "compute.nproc=3"], r"reflow-1\.training\.batch"),
        ([f"reflow=[{', '.join([ROUND] * 10)}]"], "at most 9"),
        (["onestep.loss={kind: lpips-huber}"], "features"),
        (
            [
                "onestep.loss={kind: lpips-huber, features: a, linear: b}",
                "data.source=images",
                "data.path=a",
                "data.autoencoder=a",
            ],
            "latents",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_a_remedy(overrides, rule):
    with pytest.raises(InputError, match=rule):
        load("nfm-digits", overrides)


def test_pixels_know_no_classes_for_the_inception_score():
    with pytest.raises(InputError, match=r"reference.extractor"):
        load("nfm-digits", ["evaluation.metrics=[inception-score]", "reference.extractor=pixels"])
