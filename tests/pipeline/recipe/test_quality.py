"""The settings of quality while it trains: what they need, and that without them nothing is another result."""

import pytest

from pipeline.engine.dag import build
from pipeline.recipe.load import load
from storage.errors import RecipeError

BEST = "evaluation.student=[{nfe: [2], ema: best}]"


def test_the_student_reads_the_reference_for_its_quality_alone():
    plain, asked = build(load("nfm-digits")), build(load("nfm-digits", ["student.quality={}"]))
    assert set(plain["student"].inputs) == {"data", "bank"}
    assert set(asked["student"].inputs) == {"data", "bank", "reference"}
    null = build(load("nfm-digits", ["student.quality=null", "teacher.quality=null"]))
    assert {name: node.fingerprint for name, node in null.items()} == {
        name: node.fingerprint for name, node in plain.items()
    }
    changed = {name for name in plain if plain[name].fingerprint != asked[name].fingerprint}
    assert changed == {"student", "pairs", "onestep", "evaluation", "report"}


def test_the_extractor_is_part_of_a_students_identity_only_where_it_chooses_its_weights():
    for quality, same in (("null", True), ("{}", False)):
        one, other = (
            build(load("nfm-digits", [f"student.quality={quality}", f"reference.extractor={extractor}"]))["student"]
            for extractor in ("classifier", "pixels")
        )
        assert (one.fingerprint == other.fingerprint) is same


@pytest.mark.parametrize(
    "settings",
    [
        [BEST],  # without quality
        ["student.quality={solver: dopri5}"],
        ["student.quality={nfe: null}"],
        ["student.quality={solver: midpoint, nfe: 3}"],
        ["student.quality={guidance: 2, nfe: 3, solver: euler}"],
        ["student.quality={points: 0}"],
        ["student.quality={guidance: 2}", "student.label_drop=0"],
        ["teacher.quality={points: 201}"],
    ],
)
def test_what_does_not_go_together_is_refused(settings):
    with pytest.raises(RecipeError):
        load("nfm-digits", settings)
