import os
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.dag import build
from pipeline.outputs.networks import teacher_architecture
from pipeline.recipe.faults import nearest
from pipeline.recipe.load import InvalidRecipe, changed, load, shipped, validate
from pipeline.recipe.recipe import Recipe
from storage.errors import InputError, MissingError, RecipeError


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_recipe_is_valid_and_survives_being_written_out(name, tmp_path):
    recipe = load(name)
    assert recipe.name == name
    assert recipe.description
    tree = recipe.model_dump(mode="json")
    assert validate(yaml.safe_load(yaml.safe_dump(tree)), name) == recipe
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(tree))
    assert load(str(tmp_path / "again.yaml")) == recipe


@pytest.mark.parametrize(
    ("overrides", "path"),
    [
        (["student.training.lrr=1"], "student.training.lrr: unknown key. Did you mean 'lr'?"),
        (["student.network.bas=3"], "student.network.bas: unknown key. Did you mean 'base'?"),
        (["studnt.seed=1"], "studnt: unknown key. Did you mean 'student'?"),
        (["student.training.lr=-1"], "student.training.lr must be greater than 0, got -1.0"),
        (["student.training.batch=many"], "student.training.batch must be"),
        (["student.training.images=1"], "student.training"),
        ([f"student.training.images={2**63}"], "student.training.images must be"),
        ([f"student.training.images={'9' * 5000}"], "student.training.images must be"),
        (["student.training.images=4000"], "student.training: warmup (6400) must be at most half of images (4000)"),
        (["student.training.lr=1e-6"], "student.training: final_lr"),
        (["pairs.intervals=2"], "recipe: pairs.intervals"),
        (["pairs.solver=midpoint", "pairs.nfe=7"], "pairs: "),
        (["pairs.guidance=2", "pairs.nfe=7"], "pairs: "),
        (["pairs.solver=dopri5"], "pairs: "),
        (["evaluation.student=[]"], "evaluation.student must have 1 item or more, got 0"),
        (["name=a b"], "name must be letters, digits"),
        (["compute.threads=99999999999"], "compute.threads must be"),
        (["compute.inference_batch=9223372036854775807"], "compute.inference_batch must be"),
        (["compute.rendezvous=host:0"], "compute: the port"),
        (["compute.rendezvous=host:99999999"], "compute: the port"),
        (["evaluation.likelihood={tolerance: 1.0e-300}"], "evaluation.likelihood.tolerance must be"),
        (["teacher.preview_samples=100000000"], "teacher.preview_samples must be"),
        (["compute.device=gpu"], "compute.device must be auto, cpu, cuda or cuda:N, got 'gpu'"),
        (["data.checksum=sha256:1"], "data.checksum must be sha256: and 64"),
        (["data.background=WHITE"], "data.background must be the name of a colour"),
        (["data.background=whitish"], "data.background: 'whitish'"),
        (["teacher=null"], "recipe"),
        (["student.coupling=independent"], "recipe"),
        (["student.coupling=optimal"], "student.coupling.kind must be one of"),
        (["student.network.kind=dat"], "student.network.kind must be one of"),
        (["student.network=3"], "student.network must be a section, such as {kind: unet}"),
        (["student=3"], "student must be a section, such as {coupling: …, network: …}"),
        (["student.coupling={kind: ot, x: 2}"], "student.coupling.x: unknown key"),
        (["student.time={kind: uniform, mean: 3}"], "student.time: mean belongs to kind logit-normal, not to uniform"),
        (["student.time.mean=0.5"], "student.time must name its kind (logit-normal, uniform"),
        (
            ["evaluation.student=[{nfe: [4]}, {nfe: [2, 4]}]"],
            "evaluation: evaluation.student must list each sampler once",
        ),
        (["evaluation.student=[{nfe: [4], temperature: [1, 1]}]"], "evaluation: evaluation.student must list each"),
        (["evaluation.student=[{solver: dopri5}, {solver: dopri5}]"], "evaluation: evaluation.student must list each"),
        (["data.source=images"], "data"),
        (["student.training.lr=nan"], "student.training.lr must be a finite number"),
        (["student.training.lr=1e400"], "student.training.lr must be a finite number"),
        (["name=../../etc"], "name"),
        (["seed="], "seed must be"),
    ],
)
def test_an_invalid_field_is_one_fault_that_begins_with_its_path(overrides, path):
    with pytest.raises(InvalidRecipe) as error:
        load("nfm-digits", overrides)
    (fault,) = error.value.value
    assert fault.startswith(path) and len(fault) < 300


def test_keys_of_another_kind_are_one_fault_whose_remedy_works():
    with pytest.raises(InvalidRecipe) as error:
        load("nfm-digits", ["student.network.kind=dit"])
    (fault,) = error.value.value
    remedy = "student.network={kind: dit}"
    assert fault.endswith(f"--set '{remedy}'")
    assert load("nfm-digits", [remedy]).student.network.kind == "dit"


@pytest.mark.parametrize(
    "override",
    ["lr", "name.x=1", ".=1", "student.training.lr={a: ", "description=caf\udce9"],  # the last: no UTF-8
)
def test_what_is_no_override_is_refused(override):
    with pytest.raises(RecipeError) as error:
        load("nfm-digits", [override])
    assert not isinstance(error.value, InvalidRecipe)


@pytest.mark.parametrize("name", ["nfm-digit", "nowhere.yaml"])
def test_a_recipe_that_does_not_exist_is_missing(name):
    with pytest.raises(MissingError):
        load(name)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\nb: [*a, *a]\n",
        "name: x\nname: y\n",
        "- 1\n",
        "",
        "!!python/object/apply:os.system ['true']\n",
        "name: !!binary eA==\n",
        "? [a]\n: 1\n",
        'name: "a\\0b"\n',
        "name: a\n---\nname: b\n",
        "x" * 300_000,
        "[" * 5000,
    ],
)
def test_hostile_yaml_is_refused(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as error:
        load(str(path))
    assert not isinstance(error.value, InvalidRecipe)


def test_a_run_does_not_take_the_name_of_another_shipped_recipe():
    for name in ("nfm-cifar10", "fm-digits@3"):
        with pytest.raises(RecipeError):
            load("nfm-digits", [f"name={name}"])
    assert load("nfm-digits", ["name=nfm-digits", "seed=3"]).name == "nfm-digits@3"


def test_names_are_listed_once_each():
    assert nearest("foo", ["tiny", "other", "tiny"]) == "Known: other, tiny"


# -- values mean what they say ---------------------------------------------------------------------------------------

IMAGES = ("data.source=images", "data.path=folder")
TRAPS = ["yes", "no", "on", "off", "true", "null", "~", "00", "01", "010", "0x10", "1e3", "1_000", "2024-01-01", "1:30"]


@pytest.mark.parametrize("trap", [*TRAPS, "My Photos #2", "a: b", '"quoted"', "[a]", "{a: b}", "*a", "!x", " spaced "])
def test_text_is_verbatim(trap, tmp_path):
    assert load("nfm-digits", [f"description={trap}"]).description == trap
    if trap != "null":
        assert load("nfm-digits", [*IMAGES, f"data.path={trap}"]).data.path == Path(trap).expanduser()
    if trap in TRAPS:
        assert load("nfm-digits", [*IMAGES, f"data.classes=[{trap}, x]"]).data.classes == tuple(sorted([trap, "x"]))
        path = tmp_path / "mine.yaml"
        path.write_text(f"extends: nfm-digits\ndescription: {trap}\ndata: {{classes: [{trap}, x]}}\n")
        mine = load(str(path))
        assert (mine.description, mine.data.classes) == (trap, tuple(sorted([trap, "x"])))


@pytest.mark.parametrize("empty", ["", "null"])
def test_a_field_that_may_be_null_is_set_to_null(empty):
    recipe = load("nfm-digits", [f"student.seed={empty}", f"data.path={empty}", f"data.classes={empty}"])
    assert (recipe.student.seed, recipe.data.path, recipe.data.classes) == (None, None, None)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("student.training.lr=1e-4", 1e-4),
        ("student.training.images=1e6", 1_000_000),
        ("student.training.images=020000", 20_000),
        ("data.flips=yes", True),
        ("data.flips=False", False),
        ("student.training.betas=[0.5, 0.75] # Adam's", (0.5, 0.75)),
        ("student.network.multipliers=[1, 2]", (1, 2)),
        ("evaluation.metrics=[kid]", ("kid",)),
        ("compute.device=cpu", "cpu"),
    ],
)
def test_numbers_and_lists_are_read_by_their_field(override, value):
    at = load("nfm-digits", [override])
    for key in override.split("=")[0].split("."):
        at = getattr(at, key)
    assert at == value and type(at) is type(value)


def test_a_seed_is_in_the_name_as_a_whole_number():
    recipe = load("nfm-digits", ["seed=1e3"])
    assert (recipe.name, recipe.seed) == ("nfm-digits@1000", 1000)


def test_a_warm_up_that_fits_a_short_training_is_taken():
    recipe = load("nfm-digits", ["student.training.images=4000", "student.training.warmup=2000"])
    assert recipe.student.training.warmup == 2000


def test_the_default_grid_is_that_of_the_digits():
    recipe = load("nfm-digits", ["evaluation.student=[{nfe: [4]}]", "pairs={count: 8}"])
    shipped = load("nfm-digits")
    assert recipe.evaluation.student[0].grid == shipped.evaluation.student[0].grid
    assert recipe.pairs.grid == shipped.pairs.grid


def test_a_teacher_without_a_bound_is_another_teacher():
    """Published TarFlow weights have none."""
    fingerprints = {
        bound: build(load("nfm-digits", [f"teacher.log_scale_bound={bound}"]))["teacher"].fingerprint
        for bound in ("null", "4", "2")
    }
    assert len(set(fingerprints.values())) == 3
    assert fingerprints["4"] == build(load("nfm-digits"))["teacher"].fingerprint
    teacher = load("nfm-digits", ["teacher.log_scale_bound=null"]).teacher
    images = SimpleNamespace(channels=1, size=8, classes=("0",))
    assert teacher_architecture(teacher, images).log_scale_bound is None


def test_a_list_of_guidance_is_numbers():
    recipe = load("nfm-digits", ["evaluation.student=[{solver: heun, nfe: [4], guidance: [1, 1.5]}]"])
    assert [sweep.guidance for sweep in recipe.evaluation.student] == [1.0, 1.5]


BASE = load("nfm-digits-reflow").model_dump(mode="json")


def _paths(tree, prefix=""):
    for key, value in tree.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from _paths(value, f"{prefix}{key}.")


def _without(tree, path):
    """The tree without the field at `path`."""
    tree, (*above, last) = deepcopy(tree), path.split(".")
    branch = tree
    for key in above:
        branch = branch[key]
    return branch.pop(last, None), tree


PATHS = st.sampled_from(sorted(_paths(BASE)))
WORDS = st.sampled_from(TRAPS) | st.text(st.characters(codec="utf-8"), max_size=12)
NUMBERS = st.integers(-(10**20), 10**20) | st.floats() | st.integers(0, 100)
VALUES = WORDS | NUMBERS.map(str) | st.lists(NUMBERS | st.sampled_from(TRAPS), max_size=3).map(str)


def override_changes_its_field_only(path, value):
    """The override is refused with an InputError, or taken and everything else stays as it is."""
    try:
        recipe = changed(deepcopy(BASE), [f"{path}={value}"], "generated")
    except RecipeError:
        return
    given, rest = _without(recipe.model_dump(mode="json"), path)
    before, expected = _without(BASE, path)
    if path == "seed" and recipe.seed != BASE["seed"]:  # seeds are named apart
        expected = {**expected, "name": f"{BASE['name']}@{recipe.seed}"}
    assert rest == expected
    if isinstance(given, bool):
        assert given == (value.strip().lower() in ("1", "t", "y", "true", "yes", "on"))
    elif isinstance(given, (int, float)):
        assert str(given) == value or float(value) == given
    elif isinstance(given, str) and not isinstance(before, dict):
        assert given in (value, os.path.expanduser(value)) or path == "data.path"


def text_and_classes_round_trip(text, classes):
    recipe = changed(deepcopy(BASE), [f"description={text}", f"data.classes=[{', '.join(classes)}]"], "generated")
    assert recipe.description == text
    assert recipe.data.classes == tuple(sorted(set(classes)))


CLASSES = st.lists(st.sampled_from(TRAPS) | st.from_regex(r"[A-Za-z0-9_]{1,6}", fullmatch=True), min_size=1, max_size=4)

test_an_override = settings(max_examples=100)(given(PATHS, VALUES)(override_changes_its_field_only))
test_an_override_10000 = pytest.mark.slow(
    settings(max_examples=10_000, deadline=None)(given(PATHS, VALUES)(override_changes_its_field_only))
)
test_texts = settings(max_examples=50)(given(WORDS, CLASSES)(text_and_classes_round_trip))

TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "data", "student", "training", "source", "x"]), inner, max_size=4)
    ),
)


@given(TREES)
def test_any_tree_is_a_recipe_or_an_input_error(tree):
    try:
        assert isinstance(validate(tree, "generated"), Recipe)
    except InputError as error:
        assert error.exit_code == 2


@given(st.text(max_size=40))
def test_any_override_is_taken_or_an_input_error(text):
    try:
        changed(deepcopy(BASE), [text], "generated")
    except InputError as error:
        assert error.exit_code == 2


# -- extends ---------------------------------------------------------------------------------------------------------


def test_a_recipe_extends_another_by_what_differs(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\nextends: nfm-digits\nstudent: {training: {lr: 0.5}}\npairs: null\nonestep: null\ncompute: null\n"
        "evaluation: {onestep: []}\n"
    )
    mine, base = load(str(path), ["compute.inference_batch=3"]), load("nfm-digits")
    assert mine.student.training == base.student.training.model_copy(update={"lr": 0.5})
    assert mine.pairs is None
    assert mine.teacher == base.teacher
    assert mine.compute.inference_batch == 3


@pytest.mark.parametrize("file, name", [("mine.yaml", "mine"), ("my recipe.v2.yml", "my-recipe-v2")])
def test_a_file_without_a_name_has_its_own_and_not_that_of_its_base(tmp_path, file, name):
    (tmp_path / file).write_text("extends: nfm-digits\n")
    assert load(str(tmp_path / file)) == load("nfm-digits").model_copy(update={"name": name})


def test_a_file_extends_the_file_next_to_it(tmp_path, monkeypatch):
    """Wherever the command runs, and whatever lies there under the same name."""
    here, there = tmp_path / "here", tmp_path / "there"
    for folder, seed in ((here, 1), (there, 2)):
        (folder / "sub").mkdir(parents=True)
        (folder / "base.yaml").write_text(f"name: base\nextends: nfm-digits\nseed: {seed}\n")
        (folder / "sub" / "mine.yaml").write_text("name: mine\nextends: ../base.yaml\n")
        (folder / "sub" / "twice.yaml").write_text("name: twice\nextends: mine.yaml\n")
    monkeypatch.chdir(here)
    assert [load(str(folder / "sub" / "twice.yaml")).seed for folder in (here, there)] == [1, 2]
    assert load("sub/twice.yaml").seed == 1


def test_a_section_of_another_kind_replaces_that_of_the_base(tmp_path):
    path = tmp_path / "mine.yaml"
    dit = "{kind: dit, width: 32, depth: 2, heads: 2}"
    path.write_text(f"extends: nfm-digits\nstudent: {{network: {dit}, label_drop: 0.3}}\n")
    base, mine = load("nfm-digits").student, load(str(path)).student
    assert (mine.network.kind, mine.label_drop, mine.training) == ("dit", 0.3, base.training)
    path.write_text("extends: loom-digits\nstudent: {coupling: {kind: ot}}\n")
    assert load(str(path)).student.coupling == load("loom-digits", ["student.coupling=ot"]).student.coupling
    path.write_text(f"extends: nfm-digits\nstudent: {{network: {{kind: {base.network.kind}, base: 16}}}}\n")
    assert load(str(path)).student.network == base.network.model_copy(update={"base": 16})  # the same kind is merged


@pytest.mark.parametrize("extends", ["{path}", "mine.yaml", "[a]", "nowhere", "nowhere.yaml"])
def test_extending_in_a_circle_or_nothing_is_refused(tmp_path, extends):
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\nextends: {extends.format(path=path)}\n")
    with pytest.raises((RecipeError, MissingError)):
        load(str(path))


def test_a_name_with_a_seed_is_of_that_seed(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("extends: fm-digits\nname: mine@1\nseed: 2\n")
    assert load(str(file), ["seed=1"]).name == "mine@1" and load(str(file), ["seed=3"]).name == "mine@3"
    for recipe, changes in ((str(file), []), ("fm-digits", ["name=mine@1"])):
        with pytest.raises(RecipeError):
            load(recipe, changes)
    assert load("fm-digits", ["name=mine@1", "seed=1"]).name == "mine@1"
