"""What does not fit the images is refused, stage by stage, and what fits is not."""

import pytest

from pipeline.cost.fitting import check_fit
from pipeline.cost.image_shape import ImageShape
from pipeline.engine.dag import build
from pipeline.recipe.load import load
from storage.errors import InputError

CLASSES = tuple("0123456789")
DIGITS, UNNAMED = ImageShape(1438, 359, 1, 8, CLASSES), ImageShape(1438, 359, 1, 8, ())
GUIDED = "teacher.guidance=2"
TEMPERED = "teacher.attention_temperature=1.5"
KID, RECALL = "evaluation.metrics=[kid]", "evaluation.metrics=[precision-recall]"
SMALLER = ["student.condition={kind: low-resolution, factor: 3}"]


def few(rows: int, test: int = 10) -> ImageShape:
    return ImageShape(rows, test, 1, 8, CLASSES)


def check(recipe: str, stage: str, overrides: list[str], shape: ImageShape) -> None:
    check_fit(build(load(recipe, overrides))[stage], shape)


MISFITS = {
    "student too deep": ("nfm-digits", "student", ["student.network.multipliers=[1, 1, 1, 1, 1]"], DIGITS),
    "teacher's patch": ("nfm-digits", "teacher", ["teacher.patch=3"], DIGITS),
    "teacher guided, never without a class": ("nfm-digits", "teacher", [GUIDED, "teacher.label_drop=0"], DIGITS),
    "teacher guided without classes": ("nfm-digits", "teacher", [GUIDED], UNNAMED),
    "student's samples guided without classes": (
        "nfm-digits", "student", ["student.label_drop=0.1", "student.quality={nfe: 4, guidance: 2}"], UNNAMED,
    ),
    "guided averages without classes": (
        "nfm-digits", "student", ["student.objective={kind: meanflow, guidance: 2}"], UNNAMED,
    ),
    "condition": ("sr-digits", "student", SMALLER, DIGITS),
    "training images": ("nfm-digits", "reference", [], few(3)),
    "test images": ("nfm-digits", "reference", [], few(40, 1)),
    "kid": ("nfm-digits", "evaluation", [KID], few(39)),
    "kid, mirror images": ("nfm-digits", "evaluation", [KID, "data.flips=true"], few(78)),
    "precision and recall": ("nfm-digits", "evaluation", [RECALL], few(11)),
}  # fmt: skip


@pytest.mark.parametrize(("recipe", "stage", "overrides", "shape"), MISFITS.values(), ids=MISFITS)
def test_misfits_are_refused(recipe, stage, overrides, shape):
    with pytest.raises(InputError):
        check(recipe, stage, overrides, shape)


@pytest.mark.parametrize(
    ("recipe", "stage", "overrides", "shape"),
    [
        ("nfm-digits", "teacher", [GUIDED], DIGITS),
        ("nfm-digits", "teacher", [GUIDED, TEMPERED, "teacher.label_drop=0"], UNNAMED),
        ("sr-digits", "student", [], DIGITS),
        ("nfm-digits", "reference", [], few(4, 2)),
        ("nfm-digits", "evaluation", [KID], few(40)),
        ("nfm-digits", "evaluation", [KID, "data.flips=true"], few(80)),
        ("nfm-digits", "evaluation", [RECALL], few(12)),
    ],
)
def test_what_fits_passes(recipe, stage, overrides, shape):
    check(recipe, stage, overrides, shape)
