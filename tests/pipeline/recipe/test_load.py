import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.recipe.load import load, nearest, shipped, validate
from pipeline.recipe.recipe import Recipe
from storage.errors import FlowctlError, InputError


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_recipe_is_valid_and_survives_being_written_out(name):
    recipe = load(name)
    assert recipe.name == name
    assert recipe.description
    assert validate(yaml.safe_load(yaml.safe_dump(recipe.model_dump(mode="json"))), name) == recipe


def test_an_override_reaches_its_field_and_reads_exponents_as_numbers():
    recipe = load("nfm-digits", ["student.training.lr=1e-4", "data.limit=100", "compute.device=cpu"])
    assert (recipe.student.training.lr, recipe.data.limit, recipe.compute.device) == (1e-4, 100, "cpu")


@pytest.mark.parametrize(
    ("recipe", "overrides", "words"),
    [
        ("nfm-digit", [], ["nfm-digit", "nfm-digits"]),
        ("nowhere.yaml", [], ["nowhere.yaml", "exist"]),
        ("nfm-digits", ["student.training.lrr=1"], ["student.training.lrr", "unknown key", "'lr'"]),
        ("nfm-digits", ["studnt.seed=1"], ["studnt", "'student'"]),
        ("nfm-digits", ["student.training.lr=-1"], ["student.training.lr", "greater than 0", "-1"]),
        ("nfm-digits", ["student.training.batch=many"], ["student.training.batch", "integer", "many"]),
        ("nfm-digits", ["student.training.images=1"], ["images", "at least one batch"]),
        ("nfm-digits", ["teacher=null"], ["nfm", "teacher"]),
        ("nfm-digits", ["student.coupling=independent"], ["no use for a teacher"]),
        ("nfm-digits", ["student.coupling=optimal"], ["student.coupling", "optimal"]),
        ("nfm-digits", ["lr"], ["--set section.field=value"]),
        ("nfm-digits", ["name.x=1"], ["name.x=1", "not a section"]),
        ("nfm-digits", ["data.source=images"], ["data.path"]),
        ("nfm-digits", ["student.training.lr=.nan"], ["finite"]),
        ("nfm-digits", ["name=../../etc"], ["name"]),
        ("nfm-digits", ["student.training.lr={a: "], ["plain YAML"]),
    ],
)
def test_bad_recipes_are_told_by_path_rule_and_value(recipe, overrides, words):
    with pytest.raises(InputError) as error:
        load(recipe, overrides)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a: &a [x, x]\nb: [*a, *a]\n", "alias"),
        ("name: x\nname: y\n", "twice"),
        ("- 1\n", "mapping"),
        ("!!python/object/apply:os.system ['true']\n", "plain YAML"),
        ("x" * 300_000, "at most"),
        ("[" * 5000, "plain YAML"),
    ],
)
def test_hostile_yaml_is_refused(tmp_path, text, word):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=word):
        load(str(path))


def test_a_key_of_another_section_is_not_suggested_from_everywhere():
    with pytest.raises(InputError, match=r"student\.network\.bas: unknown key\. Did you mean 'base'"):
        load("nfm-digits", ["student.network.bas=3"])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "student.network.kind=dit",
            "student.network: base, multipliers, blocks, attention, head_channels belong to kind "
            "unet, not to dit; give the section whole: --set 'student.network={kind: dit}'. Correct",
        ),
        ("student.time={kind: uniform, mean: 3}", "student.time: mean belongs to kind logit-normal, not to uniform; "),
        ("student.coupling={kind: ot, x: 2}", "student.coupling.x: unknown key. Known: batch, kind, within_classes."),
        ("student.network.kind=dat", "student.network: the kind should be one of 'unet', 'dit' (got 'dat')"),
        ("student.network=3", "student.network: should be a section, such as {kind: unet} (got 3)"),
        ("student=3", "student: should be a section, such as {coupling: …, network: …} (got 3). Correct"),
    ],
)
def test_what_does_not_fit_its_section_is_one_fault_in_plain_words(override, words):
    with pytest.raises(InputError) as error:
        load("nfm-digits", [override])
    text = str(error.value)
    assert words in text and text.count("nfm-digits is not valid: student") == 1
    assert "; got" not in text and "fault" not in text and "; student" not in text


def test_the_remedy_for_another_kind_is_one():
    assert load("nfm-digits", ["student.network={kind: dit}"]).student.network.kind == "dit"


def test_in_a_list_a_section_is_given_whole_in_the_file():
    """--set reaches no part of a list."""
    tree = load("nfm-digits-reflow").model_dump(mode="json")
    tree["reflow"][0]["loss"] = {"kind": "l2", "c": 0.1}
    with pytest.raises(InputError, match=r"reflow\.0\.loss: c belongs to kind .*, not to l2; .*: \{kind: l2\}\. "):
        validate(tree, "mine")


def test_a_section_that_is_left_out_can_be_begun_by_one_field(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nextends: nfm-digits\ncompute: null\n")
    assert load(str(path), ["compute.inference_batch=3"]).compute.inference_batch == 3


def test_names_are_listed_once_each():
    assert nearest("foo", ["tiny", "other", "tiny"]) == "Known: other, tiny"


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
        assert str(error)


@given(st.text(max_size=40))
def test_any_override_is_taken_or_an_input_error(text):
    try:
        load("nfm-digits", [text])
    except FlowctlError as error:
        assert error.exit_code == 2


def test_a_recipe_extends_another_by_what_differs(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\nextends: nfm-digits\nstudent: {training: {lr: 0.5}}\npairs: null\nonestep: null\n"
        "evaluation: {onestep: []}\n"
    )
    mine, base = load(str(path)), load("nfm-digits")
    assert mine.student.training == base.student.training.model_copy(update={"lr": 0.5})
    assert mine.pairs is None
    assert mine.teacher == base.teacher


@pytest.mark.parametrize("extends", ["{path}", "[a]", "nowhere"])
def test_extending_in_a_circle_or_nothing_is_refused(tmp_path, extends):
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\nextends: {extends.format(path=path)}\n")
    with pytest.raises(InputError):
        load(str(path))
