"""Every section of a recipe that names a path, a distribution of times or a loss has its runtime class."""

import math
from typing import get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from pipeline.flow_matching.losses import SQUARED, PseudoHuber, loss_of_config
from pipeline.flow_matching.paths import LINEAR, OptimalTransport, VarianceExploding, VariancePreserving, path_of_config
from pipeline.flow_matching.times import LogitNormal, Uniform, UShaped, times_of_config
from pipeline.recipe import sections
from pipeline.recipe.sections._times import Time

PATHS = {
    "linear": LINEAR,
    "cond-ot": OptimalTransport(1e-4),
    "vp": VariancePreserving(0.1, 20.0),
    "ve": VarianceExploding(0.01, 50.0),
}
TIMES = {"logit-normal": LogitNormal(-0.2, 1.0), "uniform": Uniform(), "u-shaped": UShaped(4.0)}


def section(union, **fields):
    return TypeAdapter(union).validate_python(fields)


def kinds(union):
    return {member.model_fields["kind"].default for member in get_args(get_args(union)[0])}


def test_each_kind_of_section_has_its_class_with_the_sections_numbers():
    assert kinds(sections.Path) == PATHS.keys() and kinds(Time) == TIMES.keys()
    for kind, path in PATHS.items():
        assert path_of_config(section(sections.Path, kind=kind)) == path
    for kind, times in TIMES.items():
        assert times_of_config(section(Time, kind=kind)) == times
    assert path_of_config(section(sections.Path, kind="ve", sigma_min=1, sigma_max=3)) == VarianceExploding(1, 3)
    assert times_of_config(section(Time, kind="logit-normal", mean=0.5, std=2)) == LogitNormal(0.5, 2)
    assert loss_of_config(section(sections.Loss, kind="l2")) is SQUARED
    assert loss_of_config(section(sections.Loss, kind="pseudo-huber", c=0.1)) == PseudoHuber(0.1)


@pytest.mark.parametrize(
    "union, fields",
    [
        (sections.Path, {"kind": "cosine"}),
        (sections.Path, {"kind": "linear", "sigma_min": 0.1}),
        (sections.Path, {"kind": "cond-ot", "sigma_min": 0.0}),
        (sections.Path, {"kind": "cond-ot", "sigma_min": 1.0}),
        (sections.Path, {"kind": "vp", "beta_min": 20.0, "beta_max": 0.1}),
        (sections.Path, {"kind": "vp", "beta_max": math.inf}),
        (sections.Path, {"kind": "ve", "sigma_min": 0.0}),
        (sections.Path, {"kind": "ve", "sigma_min": 2.0, "sigma_max": 2.0}),
        (Time, {"kind": "logit-normal", "std": 0.0}),
        (Time, {"kind": "logit-normal", "mean": math.nan}),
        (Time, {"kind": "u-shaped", "a": 51.0}),
        (sections.Loss, {"kind": "pseudo-huber", "c": 0.0}),
        (sections.Coupling, {"kind": "entropic", "regularisation": 0.0}),
        (sections.Coupling, {"kind": "loom", "batch": 1}),
        (sections.Coupling, {"kind": "loom", "interpolate": 1.1}),
    ],
    ids=str,
)
def test_sections_refuse_what_the_classes_cannot_do(union, fields):
    with pytest.raises(ValidationError):
        section(union, **fields)
