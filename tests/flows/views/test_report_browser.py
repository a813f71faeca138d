"""The report in a real browser: whole, quiet, readable on a telephone, and on paper."""

import re

import pytest

from pipeline.reporting.page import page as report
from tests.flows import chromium
from tests.pipeline.reporting import finished

pytestmark = pytest.mark.skipif(chromium.PROGRAM is None, reason="no chromium on this machine")

# What a reader would miss: images that did not load, drawings without size, tables and headings that are not shown,
# and text of an element (which does not scroll by itself) that reaches beyond the window.
LOOK = """
(() => {
  const shown = element => element.getClientRects().length > 0;
  const charts = [...document.querySelectorAll("svg.chart")].filter(shown);
  const width = document.documentElement.clientWidth;
  const inside = element => element.closest(".scroll, pre, details:not([open])") !== null;
  return {
    images: [...document.images].map(image => image.complete && image.naturalWidth > 0 && shown(image)),
    charts: charts.map(chart => chart.getBoundingClientRect().width),
    lost: charts.filter(chart => [...chart.querySelectorAll("path")].some(path => /NaN|undefined|Infinity/
      .test(path.getAttribute("d")))).length,
    headings: [...document.querySelectorAll("h1, h2")].filter(shown).map(heading => heading.textContent),
    tables: [...document.querySelectorAll("section > .scroll table")].filter(shown).length,
    wide: document.documentElement.scrollWidth - width,
    beyond: [...document.querySelectorAll("p, dt, dd, li, h1, h2, figcaption")].filter(shown)
      .filter(element => !inside(element) && element.getBoundingClientRect().right > width + 1)
      .map(element => element.textContent.slice(0, 60)),
    small: [...document.querySelectorAll("p, td, th, dd, figcaption")].filter(shown)
      .filter(element => parseFloat(getComputedStyle(element).fontSize) < 11).length,
    closed: document.querySelectorAll("details").length,
  };
})()
"""


@pytest.fixture
def address(tmp_path):
    """A report with everything that a report can show."""
    file = tmp_path / "report.html"
    file.write_text(report.render(finished.rich(tmp_path / "made")))
    return file.as_uri()


@pytest.mark.parametrize(("width", "mobile"), [(360, True), (1280, False)])
def test_nothing_is_missing_and_nothing_is_complained_of(page, address, width, mobile):
    page.resize(width, 800, mobile)
    page.listen()
    page.open(address)
    page.shows("Reproduce", "Rounds of reflow", "Memorisation")
    found = page.value(LOOK)
    assert page.complaints() == []
    assert all(url == address or url.startswith("data:") for url in page.requests()) and address in page.requests()
    assert found["images"] == [True] * 6
    assert len(found["charts"]) == 6 and min(found["charts"]) > 200 and found["lost"] == 0
    assert found["headings"] == [
        "nfm-digits",
        "A warning",
        "Samples",
        "FD-classifier by network calls",
        "Cost of an image",
        "Rounds of reflow",
        "Other metrics of the same samples",
        "Sampling paths",
        "Memorisation",
        "The teacher",
        "The noise bank",
        "The student",
        "The student after 1 round of reflow",
        "The one-step student",
        "Protocol",
        "Stages",
        "Reproduce",
    ]
    assert found["tables"] == 7 and found["wide"] <= 0 and found["beyond"] == [] and found["small"] == 0


def test_a_broken_page_is_noticed(page, tmp_path):
    """The test above could fail."""
    broken = tmp_path / "broken.html"
    broken.write_text("<h1>Broken</h1><img src='gone.png'><script>console.error('oh'); throw Error('no')</script>")
    page.listen()
    page.open(broken.as_uri())
    page.shows("Broken")
    told = " ".join(page.complaints())
    assert "oh" in told and "Uncaught" in told and "ERR_FILE_NOT_FOUND" in told
    assert page.value(LOOK)["images"] == [False]


def test_it_prints_on_a_few_pages_with_everything_opened(page, address):
    page.open(address)
    page.shows("Reproduce")
    pages = len(re.findall(rb"/Type\s*/Page\b", page.pdf()))
    assert 5 <= pages <= 25
