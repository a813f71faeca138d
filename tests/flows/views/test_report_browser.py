"""The report in a real browser: whole, quiet, readable on a telephone, and on paper."""

import re
import subprocess
import sys
from contextlib import contextmanager

import pytest

from pipeline.reporting.page import page as report
from tests.flows import chromium
from tests.flows.conftest import ROOT
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

# Texts whose contrast with what is behind them is less than WCAG 2 asks for, with that contrast.
FAINT = """
(() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (let place = element; place; place = place.parentElement) {
      const colour = numbers(getComputedStyle(place).backgroundColor);
      if (colour.length < 4 || colour[3] > 0.99) return colour;
    }
    return [255, 255, 255];
  };
  const own = element => [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
  return [...document.body.querySelectorAll("*")].filter(own)
    .filter(element => element.getClientRects().length > 0).map(element => {
      const style = getComputedStyle(element);
      const ink = luminance(numbers(element.closest("svg") ? style.fill : style.color));
      const page = luminance(behind(element));
      const contrast = (Math.max(ink, page) + 0.05) / (Math.min(ink, page) + 0.05);
      const size = parseFloat(style.fontSize);
      const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
      return contrast < (large ? 3 : 4.5) ? `${contrast.toFixed(2)}: ${element.textContent.trim().slice(0, 40)}` : "";
    }).filter(Boolean);
})()
"""

OPEN = "[...document.querySelectorAll('details')].map(one => one.open)"


@contextmanager
def serving(home):
    """The URL of the reports of the store, served as by `flowctl ui`."""
    code = (
        "import sys; from pathlib import Path; from flows.orchestration import reports\n"
        "print(reports.start(Path(sys.argv[1]), 0), flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(home)]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        yield parent.stdout.readline().strip()
        parent.stdin.close()


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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_in_both_colour_schemes(page, address, scheme):
    page.prefer(scheme)
    page.open(address)
    page.shows("Reproduce")
    assert page.value(FAINT) == []
    paper = page.value("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (max(paper) < 60) == (scheme == "dark")
    assert set(page.value("[...document.images].map(image => getComputedStyle(image).backgroundColor)")) == {
        f"rgb({', '.join(map(str, paper))})"
    }


def test_the_served_page_unfolds_where_it_is_clicked(page, tmp_path):
    """As `flowctl ui` serves it and Prefect's UI links it."""
    home = tmp_path / "store"
    folder = home / "artifacts" / "report" / "nfm-digits-0123456789ab"
    folder.mkdir(parents=True)
    (home / "prefect").mkdir()
    (folder / "report.html").write_text(report.render(finished.rich(tmp_path / "made")))
    with serving(home) as url:
        page.listen()
        page.open(f"{url}/{folder.name}/report.html")
        page.shows("Reproduce")
        folded = page.value(OPEN)
        assert len(folded) > 3 and not any(folded) and "draws_per_image" not in page.text()
        for words in ("Every number", "The whole recipe", "Versions"):
            page.click(words)
        page.shows("draws_per_image")
        assert page.value(OPEN).count(True) == 3
        page.value("document.querySelectorAll('.stages summary').forEach(stage => stage.click())")
        assert all(page.value(OPEN)) and page.value(LOOK)["beyond"] == [] and page.complaints() == []


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
