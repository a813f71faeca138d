"""The report: one page on the whole recipe for people, and the same facts in JSON for programs."""

from __future__ import annotations

from pipeline.outputs.results import ReportResult
from pipeline.recipe.sections import Config
from pipeline.reporting.page import facts, render
from pipeline.runtime.job import Job
from storage.atomic import write_json, write_text

PAGE = "report.html"
FACTS = "report.json"


def run(job: Job[Config]) -> ReportResult:
    """Write the page from the results and pictures of all other stages; nothing is computed.

    Inputs: every stage of the recipe that has a place on the page. Leaves: report.html, report.json.
    """
    write_text(job.out / PAGE, render(job.inputs))
    write_json(job.out / FACTS, facts(job.inputs))
    job.progress(1, 1, "pages")
    return ReportResult(page=PAGE)
