"""The comparison page in a real browser: whole, quiet, readable on a telephone and in both colour schemes."""

import pytest

from pipeline.reporting.compare import compare, comparison_page
from tests.flows import chromium
from tests.flows.views.test_report_browser import FAINT, LOOK
from tests.pipeline.reporting import finished
from tests.pipeline.reporting.compare.runs import seeds, three

pytestmark = pytest.mark.skipif(chromium.PROGRAM is None, reason="no chromium on this machine")

# Pairs of texts in one chart that lie on each other.
COLLISIONS = """
[...document.querySelectorAll("svg.chart")].filter(chart => chart.getClientRects().length > 0).flatMap(chart => {
  const boxes = [...chart.querySelectorAll("text")].map(text => [text.textContent, text.getBoundingClientRect()]);
  return boxes.flatMap(([name, a], i) => boxes.slice(i + 1)
    .filter(([, b]) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
      && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3)
    .map(([other]) => `${name} and ${other}`));
})
"""


@pytest.fixture(params=["one seed", "three seeds"])
def address(request, tmp_path):
    """Three recipes, two of them with a grid of samples."""
    evaluations = {name: finished.recipe(tmp_path / name, name)["evaluation"] for name in ("nfm-digits", "fm-digits")}
    runs = three() if request.param == "one seed" else seeds(1.0, 1.3, 0.9)
    (tmp_path / "comparison.html").write_text(comparison_page(compare(runs), evaluations))
    return (tmp_path / "comparison.html").as_uri()


@pytest.mark.parametrize(("width", "mobile", "scheme"), [(360, True, "dark"), (1280, False, "light")])
def test_it_is_whole_and_readable(page, address, width, mobile, scheme):
    page.resize(width, 800, mobile)
    page.prefer(scheme)
    page.listen()
    page.open(address)
    page.shows("Samples", "Cost", "Protocol")
    seen = page.value(LOOK)
    assert page.complaints() == [] and page.requests()[0] == address
    assert seen["images"] == [True, True] and len(seen["charts"]) == 3 and seen["lost"] == 0
    assert seen["wide"] <= 0 and seen["beyond"] == [] and seen["small"] == 0
    assert page.value(COLLISIONS) == [] and page.value(FAINT) == []
