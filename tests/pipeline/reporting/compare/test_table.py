"""Means and spreads over seeds, and which scores share a row."""

import statistics

import pytest

from pipeline.reporting.compare import compare
from storage.errors import InputError
from tests.pipeline.reporting.compare.runs import FM, OT, run, seeds, students, three
from tests.pipeline.reporting.finished import score


def test_one_seed():
    made = compare(three()).table()
    assert made.columns == (1, 2, 4, 8, 16, 64)
    assert [(row.recipe, row.model, row.way) for row in made.rows] == [
        ("nfm-digits", "student", ""),
        ("nfm-digits", "onestep", ""),
        ("fm-digits", "student", ""),
        ("ot-digits", "student", ""),
    ]
    best = [[row.recipe for row in made.rows if row.cells[i] and row.cells[i].best] for i in range(6)]
    assert best == [["nfm-digits"], ["nfm-digits"], ["nfm-digits"], ["fm-digits"], ["fm-digits"], ["fm-digits"]]
    assert [(level.recipe, level.text) for level in made.levels] == [("nfm-digits", "6.1"), ("", "8.5")]
    assert [row.cells[0].text for row in made.rows] == ["91.0", "6.6", "87.0", "55.0"]


def test_means_and_standard_deviations():
    scales = (1.0, 1.3, 0.9)
    made = compare(seeds(*scales)).table()
    spread = made.rows[2].cells[1].spread  # independent coupling at two calls
    assert spread.values == pytest.approx([20.5 * scale for scale in scales])
    assert spread.mean == pytest.approx(statistics.mean(spread.values))
    assert spread.deviation == pytest.approx(statistics.stdev(spread.values))
    assert made.rows[2].cells[1].text == "21.9 ± 4.3"
    assert made.levels[0].text == "6.5 ± 1.3" and made.levels[1].text == "8.5"  # all seeds share the reference
    assert spread.deviation > statistics.pstdev(spread.values)


def test_the_best_is_that_of_the_means():
    wild = [run("fm-digits", FM, 0, scale=0.1), run("fm-digits", FM, 1, scale=3.0)]
    steady = [run("ot-digits", FM, seed) for seed in (0, 1)]
    assert [row.cells[0].best for row in compare([*wild, *steady]).table().rows] == [False, True]


def adaptive(value, calls, **protocol):
    return score("student", calls, value, "dopri5", grid="quadratic", **protocol)


def test_the_adaptive_solver_has_one_column_with_its_mean_calls():
    found = [
        run("fm-digits", scores=[*students(FM), adaptive(1.5 + seed, 56 + 3 * seed)], seed=seed) for seed in (0, 1)
    ]
    made = compare(found).table()
    assert made.columns == (1, 2, 4, 8, 16, 64, "dopri5") and len(made.rows) == 1
    assert made.rows[0].cells[-1].text == "2.0 ± 0.7 (58)" and made.rows[0].cells[-1].calls == 57.5
    assert made.ways["student"] == {"euler, uniform grid": (1, 2, 4, 8, 16, 64), "dopri5": ("dopri5",)}


def test_solvers_by_number_of_calls_share_a_row():
    found = [score("student", 1, 9.0), score("student", 2, 5.0), score("student", 8, 3.0, "heun", grid="quadratic")]
    made = compare([run("a", scores=found), run("b", scores=found)]).table()
    assert [row.recipe for row in made.rows] == ["a", "b"] and all(all(row.cells) for row in made.rows)
    assert made.ways["student"] == {"euler, uniform grid": (1, 2), "heun, quadratic grid": (8,)}


def test_two_ways_at_one_number_of_calls_have_rows_of_their_own():
    both = [score("student", 2, 5.0), score("student", 2, 4.0, grid="quadratic")]
    made = compare([run("a", scores=both)]).table()
    assert [row.way for row in made.rows] == ["euler, uniform grid", "euler, quadratic grid"]
    apart = [run("a", scores=both[:1]), run("b", scores=both[1:])]  # as do two recipes that are sampled differently
    assert [row.way for row in compare(apart).table().rows] == ["euler, uniform grid", "euler, quadratic grid"]


def test_a_score_is_there_once():
    with pytest.raises(InputError, match="two for student of a"):
        compare([run("a", scores=[score("student", 1, 9.0), score("student", 1, 5.0)])]).table()


def test_metrics_have_tables_of_their_own():
    other = [
        one.model_copy(update={"metric": "recall", "value": 1 - 1 / (nfe + 1)})
        for one, nfe in zip(students(OT), OT, strict=True)
    ]
    comparison = compare(
        [run("a", scores=[*students(FM), *other]), run("b", scores=[*students(OT), *other], scale=0.9)]
    )
    assert comparison.metrics == ["FD-classifier", "recall"]
    assert [row.cells[-1].best for row in comparison.table("recall").rows] == [True, False]
    assert [row.cells[0].best for row in comparison.table().rows] == [False, True]
    with pytest.raises(InputError, match="Measured: FD-classifier, recall"):
        comparison.table("FID")
