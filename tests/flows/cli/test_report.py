"""`report`: the path of the page."""

from pathlib import Path

from storage.errors import MissingError
from tests.flows.faults import fault


def test_report_prints_and_opens_the_page(flowctl, finished, tiny, monkeypatch):
    opened = []
    monkeypatch.setattr("typer.launch", opened.append)
    page = Path(flowctl("report", tiny).stdout.strip())
    assert page.is_file() and page.suffix == ".html" and not opened
    assert flowctl("report", tiny, "--open").exit_code == 0 and opened == [page.as_uri()]


def test_report_before_the_run(flowctl, home, tiny):
    error = fault(flowctl("report", tiny))
    assert type(error) is MissingError and error.value == tiny
