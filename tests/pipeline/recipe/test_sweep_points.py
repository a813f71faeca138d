"""Sweeps in `--set`: which values are several, their product, and the names of its recipes."""

import pytest

from pipeline.engine.dag import build
from pipeline.recipe import sweep
from pipeline.recipe.load import changed, read
from pipeline.recipe.sweep import label_of, points, stem
from storage.errors import RecipeError


def recipes(*overrides, name="nfm-digits"):
    return [changed(read(name), point.overrides, name) for point in points(read(name), overrides)]


def test_values_of_numbers_switches_choices_and_kinds_are_swept():
    assert [one.student.training.lr for one in recipes("student.training.lr=1e-3, 2e-3,0.004")] == [0.001, 0.002, 0.004]
    assert [one.student.training.images for one in recipes("student.training.images=64e3,128000")] == [64000, 128000]
    assert [one.student.training.schedule for one in recipes("student.training.schedule=cosine,constant")] == [
        "cosine",
        "constant",
    ]
    swept = recipes("student.coupling=independent,ot", name="fm-digits")
    assert [one.student.coupling.kind for one in swept] == ["independent", "ot"]
    assert [one.name for one in swept] == ["fm-digits[student.coupling=independent]", "fm-digits[student.coupling=ot]"]
    assert [one.student.time.kind for one in recipes("student.time.kind=uniform,logit-normal")] == [
        "uniform",
        "logit-normal",
    ]
    assert [one.data.flips for one in recipes("data.flips=false,true")] == [False, True]
    assert recipes("data.flips=false,true")[1].name == "nfm-digits[data.flips=true]"
    assert [one.data.limit for one in recipes("data.limit=null,100")] == [None, 100]


@pytest.mark.parametrize(
    "override",
    [
        "data.path=a,b",
        "description=first, second",
        "student.network.multipliers=[1,2]",
        "student.coupling={kind: nfm, online: true}",
    ],
)
def test_text_lists_and_maps_are_one_value(override):
    (point,) = points(read("nfm-digits"), [override])
    assert point.overrides == (override,) and not point.settings


def test_the_product_varies_the_last_field_fastest():
    swept = recipes("student.training.lr=1e-3,2e-3", "seed=0,1", "student.label_drop=0.5")
    assert [(one.student.training.lr, one.seed) for one in swept] == [(0.001, 0), (0.001, 1), (0.002, 0), (0.002, 1)]
    assert [one.name for one in swept] == [
        "nfm-digits[student.lr=0.001]",
        "nfm-digits[student.lr=0.001]@1",
        "nfm-digits[student.lr=0.002]",
        "nfm-digits[student.lr=0.002]@1",
    ]
    assert [one.name for one in recipes("seed=0,1")] == ["nfm-digits", "nfm-digits@1"]


def test_fields_of_one_name_are_named_by_their_whole_path():
    first, *_ = recipes("teacher.training.lr=1,2", "student.training.lr=1,2", "student.network.base=8,16")
    assert first.name == "nfm-digits[teacher.lr=1,student.lr=1,student.base=8]"
    pairs = ("a.b.lr=1,2", "a.c.lr=1,2")  # no two fields of a recipe are alike today
    names = sweep._short_names({pair.partition("=")[0] for pair in pairs})
    assert names == {"a.b.lr": "a.b.lr", "a.c.lr": "a.c.lr"}


def test_a_sweep_of_a_recipe_of_a_sweep_continues_its_name():
    tree = read("nfm-digits") | {"name": "mine[student.lr=0.001]@3", "seed": 3}
    first, second = points(tree, ["teacher.width=8,16"])
    assert changed(dict(tree), first.overrides, "").name == "mine[student.lr=0.001,teacher.width=8]@3"
    first, second = points(tree, ["student.training.lr=1,2"])
    assert changed(dict(tree), second.overrides, "").name == "mine[student.lr=2]@3"


@pytest.mark.parametrize("value", ["1e-3,", ",1e-3", "1e-3,,2e-3", "1e-3,0.001"])
def test_empty_and_repeated_values_are_refused(value):
    with pytest.raises(RecipeError) as raised:
        points(read("nfm-digits"), [f"student.training.lr={value}"])
    assert raised.value.value == value


def test_artifacts_are_named_by_the_settings_of_their_stages():
    _, last = recipes("student.training.lr=1,2")
    labels = {name: node.label for name, node in build(last).items()}
    assert labels["bank"] == labels["teacher"] == "nfm-digits"
    assert labels["student"] == labels["report"] == last.name == "nfm-digits[student.lr=2]"
    assert label_of("a[teacher.width=8,student.lr=2]@1", {"data", "teacher"}) == "a[teacher.width=8]@1"
    assert [stem(name) for name in ("a", "a@1", "a[x.y=1]", "a[x.y=1]@1")] == ["a"] * 4
