"""`import flowctl`: a recipe with its plan, results, networks and bank; and that it agrees with the commands."""

import json
import shlex
import subprocess
import sys

import numpy as np
import pandas
import pytest
import torch

import flowctl
from flows import api
from flows.orchestration import children
from pipeline.flow_matching.sampling import starting_noise, student_samples
from pipeline.outputs.networks import average_in_words, load_flow
from pipeline.recipe.sections import Sweep
from pipeline.runtime.seeds import derive
from storage.errors import InputError, MissingError, RecipeError, UsageError
from tests.flows.conftest import ROOT, make_all


def test_importing_it_imports_nothing_heavy():
    code = "import sys, flowctl; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "prefect", "numpy", "pydantic", "yaml", "typer", "flows", "pipeline"} & set(
        done.stdout.split()
    )


def test_a_foreign_package_is_an_import_error(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "models", type(sys)("models"))
    with pytest.raises(ImportError) as raised:
        flowctl.load("nfm-digits")
    assert str(ROOT / "models") in str(raised.value)


def test_a_current_directory_that_was_deleted_is_a_wrong_use(monkeypatch, tmp_path):
    monkeypatch.delenv("FLOWCTL_HOME", raising=False)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(UsageError):
        flowctl.runs()


# -- recipes ---------------------------------------------------------------------------------------------------------


def test_values_arrive_as_they_are(tmp_path):
    folder = tmp_path / "My Photos #2"
    settings = flowctl.load(
        "nfm-digits",
        **{
            "name": "2024",
            "seed": np.int64(3),
            "data.path": folder,
            "data.source": "images",
            "data.size": 8,
            "data.classes": ["no", "00", "ü"],
            "student.training.lr": 1e-3,
            "student.condition": None,
            "evaluation.student": [{"solver": "heun", "nfe": (1, 31)}],
        },
    ).settings
    assert (settings.name, settings.seed) == ("2024@3", 3)
    assert settings.data.path == folder and settings.data.classes == ("00", "no", "ü")
    assert settings.student.training.lr == 1e-3 and settings.student.condition is None
    assert settings.evaluation.student[0].nfe == (1, 31)


def test_it_is_the_recipe_that_set_gives():
    one = flowctl.load("nfm-digits", **{"student.label_drop": 0.25, "data.limit": 100, "compute.device": "cpu"})
    other = api.load("nfm-digits@0", {"student.label_drop": "0.25", "data.limit": "100", "compute.device": "cpu"})
    assert one.settings == other.settings and repr(one) == "<flowctl.Recipe nfm-digits, seed 0>"


@pytest.mark.parametrize(
    ("name", "changes", "kind"),
    [
        ("nfm-digit", {}, MissingError),
        ("nfm-digits", {"studnet.seed": 1}, RecipeError),
        ("nfm-digits", {"student.training.lr": -1}, RecipeError),
        ("nfm-digits", {"student.training.lr": object()}, TypeError),
    ],
)
def test_wrong_recipes(name, changes, kind):
    with pytest.raises(kind):
        flowctl.load(name, **changes)


# -- what the store has ----------------------------------------------------------------------------------------------


def test_plan_artifacts_and_scores_are_those_of_the_commands(flowctl, tiny, home):
    recipe = api.load(tiny, {})
    assert {row["action"] for row in recipe.plan()} == {"run"} and recipe.artifacts() == {}
    with pytest.raises(MissingError):
        recipe.scores()
    make_all(recipe.settings)
    assert recipe.plan(until="bank", force=["bank"]) == json.loads(
        flowctl("plan", tiny, "--until", "bank", "--force", "bank", "--json").stdout
    )
    assert list(recipe.artifacts()) == [row["stage"] for row in recipe.plan()]
    scores = recipe.scores()
    assert scores == json.loads(flowctl("results", tiny, "--json").stdout)
    frame = scores.frame()
    assert frame["value"].tolist() == [9.0, 4.5] and frame["protocol.n_fake"].tolist() == [16, 16]


def test_frames_of_nothing(home):
    assert api.runs() == [] and api.runs().frame().empty


def test_a_run_is_the_command_in_a_child(tiny, home, monkeypatch, tmp_path):
    recipe = api.load(tiny, {"student.label_drop": 0.2, "description": "größer 😀"})
    seen = []

    def run_children(started, tell):
        (one,) = started
        words = one.prepared(tmp_path / "child.yaml")
        seen.extend([words, shlex.split(one.command)])
        make_all(api.load(words[1], {}).settings)
        return {one: 0}

    monkeypatch.setattr(api, "run_children", run_children)
    assert recipe.run(until="bank", force=["teacher"]) is recipe
    assert seen[0] == ["run", str(tmp_path / "child.yaml"), "--until", "bank", "--force", "teacher"]
    assert seen[1] == ["flowctl", "run", "recipe.yaml", *seen[0][2:]]  # what the report shows above the recipe
    assert {row["action"] for row in recipe.plan()} == {"reuse"}  # the child's recipe is the same


def test_wrong_stages_are_found_before_a_child_starts(tiny, home, monkeypatch):
    monkeypatch.setattr(api, "run_children", lambda *given, **more: pytest.fail("a child was started"))
    for arguments in ({"until": "teachr"}, {"force": ["pairs"]}):
        with pytest.raises(MissingError):
            api.load(tiny, {}).run(**arguments)


def test_a_failed_run_says_so(tiny, home, monkeypatch):
    monkeypatch.setattr(children, "PROGRAM", (sys.executable, "-c", "import sys; sys.exit(1)"))
    with pytest.raises(children.ChildFailed) as raised:
        api.load(tiny, {}).run()
    assert "exit code 1" in str(raised.value) and "`flowctl run tiny`" in str(raised.value)


# -- a trained recipe ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_child_finds_the_same_results(trained, capfd):
    """The recipe reaches it whole: nothing has to run, with all that was changed."""
    assert trained.run(until="evaluation") is trained
    assert "Nothing to run" in capfd.readouterr().err


def test_the_run_is_recorded(trained):
    (row,) = api.runs()
    assert (row["name"], row["state"]) == ("nfm-digits", "done") and row["changes"]["student.training.images"] == 1024
    assert {score["model"] for score in trained.scores()} == {"teacher", "student", "onestep"}


def test_samples_are_those_of_the_network(trained):
    """Against the sampler of the evaluation, from the same noise; and at 255 grey levels."""
    images = trained.sample(6, nfe=3, labels=[3, "1", 4, 1, 5, 9], solver="heun", seed=7)
    assert images.shape == (6, 8, 8, 1) and images.dtype == torch.uint8 and images.device.type == "cpu"
    z = starting_noise(derive(7, "sample"), torch.arange(6), (1, 8, 8))
    how = Sweep(solver="heun", grid=trained.settings.pairs.grid, nfe=(3,))
    first = trained.network(average=average_in_words(trained.artifacts()["student"]))  # by the name in its scores
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), trained.network().parameters(), strict=True))
    x, calls = student_samples(first, z, torch.tensor([3, 1, 4, 1, 5, 9]), how, 3)
    assert calls == 3
    expected = ((x.clamp(-1, 1) + 1) * 8).add(0.5).floor() * (255 / 16)
    assert (images.permute(0, 3, 1, 2) - expected).abs().max() <= 16  # a level: batches of another size round otherwise
    assert torch.equal(trained.sample(3, 2, labels=1), trained.sample(3, 2, ["1"] * 3))
    assert torch.equal(trained.sample(12, 1)[:3], trained.sample(3, 1, labels=[0, 1, 2]))


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"count": 0}, UsageError),
        ({"count": 3, "labels": [1, 2]}, UsageError),
        ({"count": 1, "labels": "ten"}, UsageError),
        ({"count": 1, "model": "reflow-1"}, UsageError),
        ({"count": 1, "model": "teacher", "nfe": 4}, UsageError),
        ({"count": 1, "model": "onestep", "nfe": 2}, UsageError),
        ({"count": 1, "nfe": 3, "solver": "midpoint"}, InputError),
        ({"count": 1, "labels": 1.5}, UsageError),
        ({"count": 1, "seed": -1}, UsageError),
        ({"count": 1, "solver": "eulr"}, UsageError),
        ({"count": 1, "solver": "dopri5"}, UsageError),  # which chooses its steps
        ({"count": 1, "average": "none"}, InputError),
    ],
)
def test_wrong_samples(trained, arguments, kind):
    with pytest.raises(kind):
        trained.sample(**arguments)


def test_sampling_leaves_torch_as_it_was(trained):
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        torch.set_num_threads(2)
        torch.use_deterministic_algorithms(False)
        trained.sample(1, model="teacher")
        assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (2, False)
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1], warn_only=True)


def test_the_bank_holds_the_teachers_noise(trained):
    pair = next(iter(trained.bank(64, seed=3)))
    assert pair["x"].shape == pair["z"].shape == (64, 1, 8, 8)
    again = next(iter(trained.bank(64, seed=3)))
    assert all(torch.equal(pair[name], again[name]) for name in pair)
    # z = f(x + eta eps, c) / sigma_f: its norm is that of a standard normal up to the teacher's error.
    assert 0.7 < pair["z"].std() < 1.4
    flow = load_flow(trained.artifacts()["teacher"])
    encoded = flow.encode(pair["x"], pair["labels"])
    assert torch.corrcoef(torch.stack([encoded.flatten(), pair["z"].flatten()]))[0, 1] > 0.9
    pairs = next(iter(trained.bank(32, stage="pairs")))
    assert set(pairs) >= {"x", "z"} and len(pairs["z"]) == 32
    steps = trained.settings.onestep.model_copy(update={"steps": 2})
    parts = api.Recipe(trained.settings.model_copy(update={"onestep": steps}))  # whose pairs are parts of paths
    for recipe, stage in ((trained, "student"), (parts, "pairs")):
        with pytest.raises(UsageError):
            recipe.bank(stage=stage)


def test_frames_of_scores_and_runs(trained):
    scores = trained.scores().frame()
    assert isinstance(scores, pandas.DataFrame) and set(scores["nfe"]) >= {1.0, 2.0, 3.0}
    assert api.runs("FD-pixels").frame()["recipe.data.limit"].tolist() == [200]
