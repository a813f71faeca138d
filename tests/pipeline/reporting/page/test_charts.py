"""Geometry of the page's charts."""

from itertools import pairwise

from pipeline.reporting.page.charts import TEXT, Figure, Point, Series, drawn


def test_words_next_to_marks_do_not_lie_on_each_other():
    """Numbers of calls at one training time: quality saturates, and their marks crowd."""
    values = [4.0, 1.0, 0.2, 0.199, 0.198, 0.1]
    points = [Point(5.0, value, "", value, value, text=str(2**k)) for k, value in enumerate(values)]
    far = [Point(10.0, value, "", value, value, text="far") for value in (0.2, 4.0)]
    for chart in drawn(Figure([Series("a", points), Series("b", far)], "time", "FD")):
        crowded, other = (curve.marks for curve in chart.curves)
        assert [mark.text for mark in crowded] == ["1", "2", "4", "", "", "32"]
        assert [mark.text for mark in other] == ["far", "far"]
        shown = [mark.y for mark in crowded if mark.text]
        assert all(b - a >= TEXT[1] for a, b in pairwise(shown))
