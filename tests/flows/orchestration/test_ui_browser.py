"""Prefect's UI as a person uses it, in a real browser: run, watch, fail, retry, and find the report.

With FLOWCTL_SHOTS=DIRECTORY it leaves pictures there: docs/prefect-*.png were made so.
"""

import json
import os
from pathlib import Path

import pytest

from tests.flows import chromium
from tests.flows.conftest import RECIPE
from tests.flows.worker import workshop

pytestmark = [pytest.mark.slow, pytest.mark.skipif(chromium.PROGRAM is None, reason="no chromium on this machine")]
FAKES = json.dumps(
    {
        "teacher": {"steps": 60, "seconds": 1.0},
        "student": {"steps": 12, "seconds": 1.0, "fail": "StageFailed", "times": 1},
    }
)

# Click the link to the report, in this tab.
FOLLOW = """
(() => {
  const link = [...document.querySelectorAll("a")].find(link => link.href.endsWith("/report.html"));
  if (link) { link.removeAttribute("target"); link.click(); }
  return Boolean(link);
})()
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workshop")
    (folder / "tiny.yaml").write_text(RECIPE + "compute: {device: cpu}\n")
    with workshop(folder) as made:
        made.deploy(str(folder / "tiny.yaml"))
        made.work(FAKES=FAKES)
        yield made


@pytest.fixture
def shoot(page):
    """Take a picture for the documentation, if asked to."""
    folder = os.environ.get("FLOWCTL_SHOTS")
    return (lambda name: page.shoot(Path(folder) / f"prefect-{name}.png")) if folder else (lambda name: None)


def test_a_run_fails_in_the_ui_and_is_retried_there(shop, page, shoot):
    deployment = shop.api("deployments/name/flowctl/tiny")["id"]
    page.open(f"{shop.ui}/deployments/deployment/{deployment}")
    page.shows("tiny", "flowctl", "Parameters")
    shoot("deployment")
    page.click("Run")
    page.click("Quick run")
    page.shows("Run Deployment", '"name": "tiny"')  # the whole recipe, to be changed for this run
    shoot("recipe")
    page.click("Run")
    page.shows("scheduled to start")
    (run,) = (found["id"] for found in shop.api("flow_runs/filter", {"deployments": {"id": {"any_": [deployment]}}}))

    page.open(f"{shop.ui}/runs/flow-run/{run}")
    shop.until(lambda: "tiny-seed-0-teacher" in shop.artifacts(run))
    page.shows("Running")
    page.click("Task Runs")
    page.shows("teacher", "data", "Completed")
    shoot("running")
    progress = shop.artifacts(run)["tiny-seed-0-teacher"]["id"]
    page.open(f"{shop.ui}/artifacts/artifact/{progress}")
    page.shows("tiny-seed-0-teacher", "of 60 images")
    shoot("progress")

    shop.reaches(run, "Failed")
    page.open(f"{shop.ui}/runs/flow-run/{run}")
    page.shows("Failed", "Retry")
    page.click("Logs")
    page.shows("The loss is not finite at image 640")
    shoot("failed")
    page.click("Retry")
    page.shows("This will retry flow run")
    page.click("Retry")
    shop.until(lambda: shop.state(run) != "Failed")

    shop.reaches(run, "Completed")
    page.open(f"{shop.ui}/runs/flow-run/{run}")
    page.shows("Completed")
    page.click("Task Runs")
    page.shows("Reused", "Resumed", "report")
    shoot("completed")
    page.value(
        "[...document.querySelectorAll('li, button, a')].filter(tab => tab.textContent.trim() === 'Task Runs')"
        ".pop().scrollIntoView()"
    )
    shoot("stages")
    assert shop.tasks(run)[:5] == [
        ("data (reused)", "Reused"),
        ("reference (reused)", "Reused"),
        ("teacher (reused)", "Reused"),
        ("bank (reused)", "Reused"),
        ("student", "Resumed"),
    ]
    scores = shop.artifacts(run)["tiny-seed-0-scores"]["id"]
    page.open(f"{shop.ui}/artifacts/artifact/{scores}")
    page.shows("FD-classifier", "4.500")
    shoot("scores")
    samples = shop.artifacts(run)["tiny-seed-0-samples"]["id"]
    page.open(f"{shop.ui}/artifacts/artifact/{samples}")
    page.shows("Samples of tiny, seed 0")
    picture = "[...document.images].some(image => image.src.startsWith('data:image/png') && image.naturalWidth > 0)"
    shop.until(lambda: page.value(picture))
    shoot("samples")

    stages = shop.artifacts(run)["tiny-seed-0-stages"]["id"]
    page.open(f"{shop.ui}/artifacts/artifact/{stages}")
    page.shows("tiny, seed 0", "reused", "resumed", "evaluation")
    shown = shop.artifacts(run)["tiny-seed-0-summary"]["id"]
    page.open(f"{shop.ui}/artifacts/artifact/{shown}")
    page.shows("Scores of tiny, seed 0", "FD-classifier")
    link = shop.artifacts(run)["tiny-seed-0-report-page"]["id"]
    page.open(f"{shop.ui}/artifacts/artifact/{link}")
    page.shows("Report of tiny, seed 0")
    shop.until(lambda: page.value(FOLLOW))
    page.shows("report ['")  # what the fake stage writes
    address = page.value("document.location.href")
    assert address.startswith("http://127.0.0.1:") and not address.startswith(shop.ui)
