"""The comparison as a page: what is drawn, what it costs, and that it is self-contained."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from pipeline.reporting.compare import compare, comparison_page
from pipeline.reporting.compare._html import _by_training
from tests.pipeline.reporting import finished
from tests.pipeline.reporting.compare.runs import run, seeds, three


@pytest.fixture
def pages(tmp_path):
    """A page of three recipes, two with sample grids; with one seed and with three."""
    evaluations = {name: finished.recipe(tmp_path / name, name)["evaluation"] for name in ("nfm-digits", "fm-digits")}
    return [comparison_page(compare(runs), evaluations) for runs in (three(), seeds(1.0, 1.3, 0.9))]


def charts(page):
    """The drawings, each for wide and for narrow screens."""
    return [
        ElementTree.fromstring(re.sub(r"&(?!amp|lt|gt|#)", "&amp;", text))
        for text in re.findall(r'<svg class="chart.*?</svg>\s*(?=<svg class="chart|<figcaption)', page, re.DOTALL)
    ]


def test_three_charts_with_titles_on_both_axes(pages):
    for page in pages:
        drawings = charts(page)
        assert len(drawings) == 6  # by calls, by seconds, by training time
        assert all(len(one.findall(".//text[@class='title']")) == 2 for one in drawings)


def test_error_bars_where_there_are_seeds(pages):
    one, several = ([len(chart.findall(".//line[@class='error']")) for chart in charts(page)] for page in pages)
    assert set(one) == {0} and min(several) >= 20  # a bar for each mark


def test_sample_grids_stand_side_by_side(pages):
    assert all(page.count("<img ") == 2 for page in pages)


def test_it_is_self_contained_and_escaped():
    page = comparison_page(compare([run("<script>"), run("b&c")]), {})
    assert "<script" not in page and "&lt;script&gt;" in page and not re.search(r"(https?:)?//\w", page)


def test_training_time_includes_the_teacher():
    comparison = compare(three())
    figure = _by_training(comparison, comparison.table())
    times = {series.label: {round(60 * point.x, 9) for point in series.points} for series in figure.series}
    assert figure.x_label.endswith("minutes")
    assert times["nfm-digits"] == {100 + 9 + 66} and times["fm-digits"] == {66}
    assert times["nfm-digits, one-step student"] == {100 + 9 + 66 + 5 + 41}
    rounds = run(seconds={"student": 10.0, "pairs-1": 1.0, "reflow-1": 2.0, "pairs": 4.0, "onestep": 8.0})
    assert [rounds.training_seconds(model) for model in ("student", "reflow-1", "onestep")] == [10, 13, 25]
