"""Cost of the noise: which scores are paired, in which rows and columns, and when the page has the section."""

from html.parser import HTMLParser

import pytest

from pipeline.outputs.results import EvaluationResult
from pipeline.reporting.page import page
from pipeline.reporting.page.noise_cost import view
from tests.pipeline.reporting import finished

UNIFORM, QUADRATIC = "euler, uniform grid", "euler, quadratic grid"


def sampled(values, solver="euler", **protocol):
    """The student's scores with these distances to the held-out images, by NFE; those to the training images differ."""
    protocol |= {"n_fake": 200, "n_held_out": 201}
    return [
        finished.score("student", nfe, 100 + value, solver, **protocol).model_copy(update={"value_held_out": value})
        for nfe, value in values.items()
    ]


def encoded(values, solver="euler", **protocol):
    return sampled(values, solver, start="z of 200 held-out images", **protocol)


def result(gaussian, encoded):
    return EvaluationResult(
        protocol="x",
        floor=1.0,
        scores=tuple(sampled({1: 55.0})),
        curvature=0.1,
        noise_cost=(*gaussian, *encoded),
        warnings=(),
    )


def rows(gaussian, encoded):
    return [(row.setting, row.temperature, row.distances) for row in view(result(gaussian, encoded)).rows]


def test_every_start_has_a_row_and_every_number_of_calls_a_column():
    shown = view(result(sampled({1: 9.0, 2: 5.0, 4: 4.0}), encoded({4: 0.6, 1: 3.0, 2: 1.0})))
    assert shown.metric == "FD-classifier" and shown.columns == (1, 2, 4)
    assert (shown.samples, shown.held_out) == (200, 201)
    assert [(row.temperature, row.distances) for row in shown.rows] == [
        (1, ("9.00", "5.00", "4.00")),
        (None, ("3.00", "1.00", "0.60")),
    ]


def test_other_metrics_and_samplers_are_no_counterpart():
    here = sampled({1: 9.0})
    others = [
        here[0].model_copy(update={"metric": "KD-classifier", "value_held_out": 7.0}),
        *sampled({1: 7.0}, guidance=2.0),
        *sampled({1: 7.0}, ema="power-0.05"),
        *sampled({1: 7.0}, "heun"),
        *sampled({2: 7.0}),
    ]
    assert rows([*here, *others], encoded({1: 3.0})) == [(UNIFORM, 1, ("9.0",)), (UNIFORM, None, ("3.0",))]


def test_each_sweep_is_paired_with_its_own_twin():
    scores = [*sampled({1: 9.0, 2: 5.0}), *sampled({2: 4.0, 4: 3.0}, grid="quadratic")]
    twins = [*encoded({1: 2.0, 2: 1.0}), *encoded({2: 2.0, 4: 1.0}, grid="quadratic")]
    expected = [
        (UNIFORM, 1, ("9.0", "5.0", None)),
        (UNIFORM, None, ("2.0", "1.0", None)),
        (QUADRATIC, 1, (None, "4.0", "3.0")),
        (QUADRATIC, None, (None, "2.0", "1.0")),
    ]
    assert rows(scores, twins) == expected
    assert rows(scores[::-1], twins) == expected


def test_averages_of_the_weights_are_sweeps_too():
    emas = ("half-life-10000", "power-0.05")
    scores = [one for ema, value in zip(emas, (9.0, 8.0), strict=True) for one in sampled({1: value}, ema=ema)]
    twins = [one for ema, value in zip(emas, (3.0, 2.0), strict=True) for one in encoded({1: value}, ema=ema)]
    assert [(temperature, cells) for _, temperature, cells in rows(scores, twins)] == [
        (1, ("9.0",)),
        (None, ("3.0",)),
        (1, ("8.0",)),
        (None, ("2.0",)),
    ]


def test_a_solver_that_chooses_its_calls_has_a_column():
    shown = view(
        result(
            [*sampled({8: 9.0}), *sampled({57.25: 5.0}, "dopri5")], [*encoded({8: 2.0}), *encoded({61: 1.0}, "dopri5")]
        )
    )
    assert shown.columns == (8, "dopri5")
    assert [row.distances[1] for row in shown.rows[2:]] == ["5.0 (57)", "1.0 (61)"]


def test_every_temperature_has_a_row():
    warm, hot = sampled({1: 8.0, 2: 7.0}, temperature=1.05), sampled({1: 6.0, 2: 5.0}, temperature=1.1)
    normal, twins = sampled({2: 9.0}), encoded({1: 2.0, 2: 1.0})
    assert rows([*hot, *warm, *normal], twins) == [
        (UNIFORM, 1, (None, "9.0")),
        (UNIFORM, 1.05, ("8.0", "7.0")),
        (UNIFORM, 1.1, ("6.0", "5.0")),
        (UNIFORM, None, ("2.0", "1.0")),
    ]
    assert view(result(hot, twins)).tempered and not view(result(normal, twins)).tempered


class Tables(HTMLParser):
    """The cells of each table by its class, row by row."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.rows = {}, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "table":
            self.rows = self.tables.setdefault(dict(attributes)["class"], [])
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        if tag == "table":
            self.rows = None

    def handle_data(self, data):
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


@pytest.mark.parametrize("measured", [True, False])
def test_the_page_has_the_section_where_it_was_measured(tmp_path, measured):
    inputs = finished.recipe(tmp_path)
    scores = [*sampled({1: 9.0}), *sampled({2: 5.0}, temperature=1.1)]
    metrics = result(*((scores, encoded({1: 3.0, 2: 1.0})) if measured else ((), ()))).model_dump(mode="json")
    inputs |= {"evaluation": inputs["evaluation"].model_copy(update={"metrics": metrics})}
    tables = Tables(page.render(inputs)).tables
    assert ("scores starts" in tables) == measured
    if measured:
        head, *body = tables["scores starts"]
        assert head[1:] == ["1", "2"] and [row[1:] for row in body] == [["9.0", "–"], ["–", "5.0"], ["3.0", "1.0"]]
        assert "1.1" in body[1][0] and "1.1" not in body[0][0] + body[2][0]
    assert page.facts(inputs)["noise_cost"] == metrics["noise_cost"]
