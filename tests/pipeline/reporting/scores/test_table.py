"""Means and spreads over seeds, marks, and which scores share a row or a table."""

import statistics

import pytest

from pipeline.reporting.compare import compare
from pipeline.reporting.scores.metrics import HALVES, HELD_OUT, yardstick_of
from pipeline.reporting.scores.protocol import ProtocolError
from pipeline.reporting.scores.table import table
from storage.errors import InputError, MissingError
from tests.pipeline.reporting.compare.runs import FM, OT, run, seeds, students, three
from tests.pipeline.reporting.finished import score


def single(scores, metric="FD-classifier", **options):
    """A report's table."""
    return table({"r": [scores]}, metric, **options)


def test_sampler_settings_have_rows_in_a_report():
    found = [
        score("student", 1, 9.0),
        score("student", 2, 5.0),
        score("student", 2, 4.0, grid="quadratic"),
        score("student", 2, 3.0, "heun"),
        score("student", 2, 2.0, "heun", guidance=1.5),
        score("student", 2, 2.5, "heun", temperature=1.117),
    ]
    made = single(found)
    assert [row.setting for row in made.rows] == [
        "euler, uniform grid",
        "euler, quadratic grid",
        "heun, uniform grid",
        "heun, uniform grid, guidance 1.5",
        "heun, uniform grid, temperature 1.117",
    ]
    assert [[cell and cell.value for cell in row.cells] for row in made.rows] == [
        [9.0, 5.0],
        [None, 4.0],
        [None, 3.0],
        [None, 2.0],
        [None, 2.5],
    ]
    assert [cell.best for row in made.rows for cell in row.cells if cell] == [False] * 4 + [True, False]


def test_every_guidance_that_changes_samples_is_named():
    """0 makes a student unconditional and leaves a teacher as it is, 1 the other way round."""
    made = single([score(model, 2, 3.0, guidance=scale) for model in ("student", "teacher") for scale in (0.0, 1.0)])
    assert [(row.model, row.setting.rpartition(", ")[2]) for row in made.rows] == [
        ("student", "guidance 0"),
        ("student", "uniform grid"),
        ("teacher", "euler"),
        ("teacher", "guidance 1"),
    ]


def test_a_table_has_one_protocol():
    with pytest.raises(ProtocolError) as raised:
        single([score("student", 1, 9.0), score("student", 2, 5.0, n_fake=50_000)])
    assert raised.value.value == "n_fake: 5,000 and 50,000"
    with pytest.raises(ProtocolError):
        single([score("student", 1, 9.0), score("student", 2, 5.0, condition="small images")])


def test_averages_of_the_weights_tell_rows_apart():
    made = single([score("student", 1, 9.0, ema=f"half-life-{n}") for n in (10, 20)])
    assert [row.setting for row in made.rows] == [f"euler, uniform grid, ema half-life-{n}" for n in (10, 20)]


def test_the_best_is_marked_as_it_is_printed():
    made = single([score("student", 1, 5.04), score("onestep", 1, 4.96)])
    assert [row.cells[0].rounded for row in made.rows] == ["5.0", "5.0"] and all(row.cells[0].best for row in made.rows)


def test_a_table_that_mixes_time_grids_marks_the_rarer_one():
    mixed = [score("student", n, 9.0 / n) for n in (1, 2, 4)] + [score("student", 8, 1.0, "heun", grid="quadratic")]
    made = single(mixed)
    assert [cell.other_grid for row in made.rows for cell in row.cells if cell] == [False, False, False, True]
    assert made.grids == ("uniform", "quadratic")
    same = single([*mixed[:3], score("student", 1, 8.0, "heun", grid="quadratic")])  # one step is the same on any grid
    assert same.grids == ("uniform",) and not any(cell.other_grid for _, cell in same.measured)


def test_within_noise_of_the_best():
    """Two standard errors of the difference of the means: here 2 sqrt(2 (1/3)) = 1.63 with deviations of 1."""

    def near(distance):
        runs = {
            name: [[score("student", 1, v + shift)] for v in (9, 10, 11)] for name, shift in (("a", 0), ("b", distance))
        }
        return table(runs, "FD-classifier").rows[1].cells[0].near

    assert near(1.6) and not near(1.7)
    errors = [
        score("student", 1, 5.0).model_copy(update={"error": 0.1}),
        score("onestep", 1, 5.25).model_copy(update={"error": 0.1}),
    ]
    assert single(errors).rows[1].cells[0].near  # 0.25 < 2 sqrt(0.02) = 0.283
    assert not single([score("student", 1, 5.0), score("onestep", 1, 5.1)]).rows[1].cells[0].near  # noise is not known


def test_yardsticks():
    held_out = {"FD-classifier": 5.3}
    assert yardstick_of("FD-classifier", held_out, 8.5, {}) == (HELD_OUT, 5.3)
    assert yardstick_of("FD-classifier", {}, 8.5, {}) == (HALVES, 8.5)
    assert yardstick_of("KD-classifier", held_out, 8.5, {"KD-classifier": 0.1}) == (HALVES, 0.1)
    assert yardstick_of("recall", held_out, 8.5, {}) is None


def test_distances_to_held_out_images_stand_below_those_to_training_images():
    found = [
        score(model, n, value).model_copy(update={"value_held_out": held_out})
        for model, n, value, held_out in (
            ("student", 1, 4.0, 6.0),
            ("student", 2, 3.0, None),
            ("onestep", 1, 5.0, 5.5),
            ("teacher", 0, 2.0, 2.5),
        )
    ]
    made = single(found, yardstick=(HELD_OUT, 5.3))
    assert [(row.model, row.held_out) for row in made.rows] == [
        ("student", False),
        ("student", True),
        ("onestep", False),
        ("onestep", True),
    ]
    assert [[cell and cell.value for cell in row.cells] for row in made.rows][:2] == [[4.0, 3.0], [6.0, None]]
    assert [row.cells[0].best for row in made.rows] == [True, False, False, True]  # each side has its own best
    assert [(level.model, level.value, level.held_out) for level in made.levels] == [
        ("teacher", 2.0, False),
        ("teacher", 2.5, True),
        (HELD_OUT, 5.3, False),
    ]
    assert {cell.value for _, cell in made.measured} == {3.0, 4.0, 5.0}  # charts and headlines


def test_one_seed():
    made = compare(three()).table()
    assert made.columns == (1, 2, 4, 8, 16, 64)
    assert [(row.recipe, row.model, row.setting) for row in made.rows] == [
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
    assert made.rows[0].cells[-1].text == "2.0 ± 0.7 (58)" and made.rows[0].cells[-1].nfe == 57.5
    assert made.settings["student"] == {"euler, uniform grid": (1, 2, 4, 8, 16, 64), "dopri5": ("dopri5",)}


def test_solvers_by_number_of_calls_share_a_row():
    found = [score("student", 1, 9.0), score("student", 2, 5.0), score("student", 8, 3.0, "heun", grid="quadratic")]
    made = compare([run("a", scores=found), run("b", scores=found)]).table()
    assert [row.recipe for row in made.rows] == ["a", "b"] and all(all(row.cells) for row in made.rows)
    assert made.settings["student"] == {"euler, uniform grid": (1, 2), "heun, quadratic grid": (8,)}


def test_two_settings_at_one_number_of_calls_have_rows_of_their_own():
    both = [score("student", 2, 5.0), score("student", 2, 4.0, grid="quadratic")]
    made = compare([run("a", scores=both)]).table()
    assert [row.setting for row in made.rows] == ["euler, uniform grid", "euler, quadratic grid"]
    apart = [run("a", scores=both[:1]), run("b", scores=both[1:])]  # as do two recipes that are sampled differently
    assert [row.setting for row in compare(apart).table().rows] == ["euler, uniform grid", "euler, quadratic grid"]


def test_a_score_is_there_once():
    with pytest.raises(InputError):
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
    with pytest.raises(MissingError):
        comparison.table("FID")
