"""Costs, and whether what is cheap to know predicts what is dear."""

import pytest
from scipy.stats import rankdata

from pipeline.outputs.results import ProbeResult
from pipeline.reporting.compare import compare
from pipeline.reporting.compare._figures import figures
from pipeline.reporting.compare._words import remarks
from tests.pipeline.reporting.compare.runs import FM, run, seeds, students, three

RECIPES = "abcdefg"


def ordered(cheap, dear, metric="FD-classifier"):
    """A recipe for each pair: transport cost and curvature, with the score at two calls like the curvature."""
    return [
        run(
            name,
            scores=[one.model_copy(update={"metric": metric}) for one in students(FM)],
            transport_cost=c,
            curvature=d,
            scale=1,
        ).model_copy(
            update={
                "scores": tuple(one.model_copy(update={"metric": metric, "value": d}) for one in students({2: 1.0}))
            }
        )
        for name, c, d in zip(RECIPES, cheap, dear, strict=False)
    ]


def rho(comparison, cheap="transport cost", dear="curvature"):
    (found,) = [item for item in comparison.predictions() if (item.cheap, item.dear) == (cheap, dear)]
    return found.rho


def test_the_cost_of_a_coupling_is_its_teacher_and_bank_and_of_a_student_its_own():
    columns, lines = figures(three())
    shown = {line.recipe: dict(zip([column.title for column in columns], line.texts, strict=True)) for line in lines}
    assert shown["nfm-digits"] | {"coupling, s": "109", "student, s": "66", "one-step, s": "46"} == shown["nfm-digits"]
    assert (shown["fm-digits"]["coupling, s"], shown["fm-digits"]["one-step, s"]) == (None, None)
    assert shown["fm-digits"]["transport cost"] == "1.70" and shown["fm-digits"]["curvature"] == "1.00"
    assert "sliced W2 of z" not in shown["fm-digits"]  # not measured
    potentials = run("sd-digits", seconds={"potentials": 30.0, "student": 66.0})
    assert figures([potentials])[1][0].texts[-2:] == ("30", "66")


def test_figures_over_seeds():
    columns, lines = figures(seeds(1.0, 2.0))
    assert [column.heading for column in columns][2] == "curvature × 1,000"
    assert lines[0].texts[2] == "1.50 ± 0.71"
    some = seeds(1.0, 2.0)
    some[0] = some[0].model_copy(update={"velocity_variance": None})
    assert figures(some)[1][0].texts[1] is None  # a mean of one seed next to means of two would mislead


def test_what_the_noise_tells_of_the_class_beyond_chance():
    """In points of a hundred, also where nothing is found: a figure near 0 has no more decimals for it."""
    told, nothing = (ProbeResult(accuracy=a, chance=0.1, standard_error=0.004, decisions=819) for a in (0.25, 0.0999))
    columns, lines = figures([run("nfm-digits", class_leak=told), run("fm-digits", class_leak=nothing)])
    at = [column.heading for column in columns].index("class from z × 100")
    assert [line.texts[at] for line in lines] == ["15.0", "0.0"]
    comparison = compare([run("nfm-digits", class_leak=told), run("fm-digits", class_leak=nothing)])
    assert "0.4" in next(line for line in remarks(comparison.runs) if line.startswith("Class from z"))


def test_the_same_order_the_opposite_and_none():
    cheap = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert rho(compare(ordered(cheap, [1, 4, 9, 16, 25, 36]))) == pytest.approx(1)
    assert rho(compare(ordered(cheap, [6, 5, 4, 3, 2, 1]))) == pytest.approx(-1)
    assert rho(compare(ordered(cheap, [3.0] * 6))) is None


def test_spearman_by_its_formula():
    cheap, dear = [1.0, 5.0, 2.0, 4.0, 3.0, 9.0, 0.5], [2.0, 3.0, 1.0, 9.0, 5.0, 7.0, 4.0]
    distance = sum((a - b) ** 2 for a, b in zip(rankdata(cheap), rankdata(dear), strict=True))
    expected = 1 - 6 * distance / (7 * (7**2 - 1))
    comparison = compare(ordered(cheap, dear))
    assert rho(comparison) == pytest.approx(expected)
    assert rho(comparison, dear="FD-classifier at 2 calls") == pytest.approx(expected)
    (first, *_) = comparison.predictions()
    assert (first.students, first.recipes) == (7, 7)


def test_a_metric_that_is_better_when_higher_counts_the_other_way():
    falling = compare(ordered([1, 2, 3, 4, 5], [5, 4, 3, 2, 1], metric="recall"))
    assert rho(falling, dear="recall at 2 calls") == pytest.approx(1)


def test_few_students_predict_nothing():
    assert compare(three()).predictions() == []
    assert {item.students for item in compare(seeds(1.0, 1.1)).predictions()} == {6}


def test_what_was_not_measured_is_left_out():
    found = [one.model_copy(update={"velocity_variance": None}) for one in seeds(1.0, 1.1)]
    assert {item.cheap for item in compare(found).predictions()} == {"transport cost"}
    once = [run(name, scores=students({1: 5.0}), curvature=i + 1) for i, name in enumerate(RECIPES)]
    assert {item.dear for item in compare(once).predictions()} == {"curvature"}
