"""The log of a run, as lines that other programs read."""

import json
import logging
from pathlib import Path

import pytest

from flows.session.journal import Journal
from flows.session.logs import forward_logs
from storage.errors import Interrupted


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_a_stage_logs_stands_in_its_span(tmp_path):
    journal = Journal(tmp_path / "run.jsonl")
    log = logging.getLogger("pipeline.somewhere")
    with forward_logs(journal=journal):
        log.info("before")
        with journal.span("teacher") as told:
            log.warning("%d images", 5)
            log.debug("not this")
            told["outcome"] = "resumed"
    log.info("nor this")
    before, begin, said, end = lines(journal.path)
    assert before["message"] == "before" and "stage" not in before
    assert (begin["event"], begin["stage"]) == ("begin", "teacher")
    assert (said["level"], said["logger"], said["message"], said["stage"]) == (
        "WARNING",
        "pipeline.somewhere",
        "5 images",
        "teacher",
    )
    assert (end["event"], end["outcome"]) == ("end", "resumed") and end["seconds"] >= 0
    assert before["time"] <= begin["time"] <= said["time"] <= end["time"]


@pytest.mark.parametrize(("error", "outcome"), [(Interrupted("Ctrl-C"), "stopped"), (ValueError("x"), "failed")])
def test_a_span_that_does_not_end_well(tmp_path, error, outcome):
    journal = Journal(tmp_path / "run.jsonl")
    with pytest.raises(type(error)), journal.span("student"):
        raise error
    assert lines(journal.path)[-1]["outcome"] == outcome and str(error) in lines(journal.path)[-1]["error"]


def test_exceptions_are_logged_whole(tmp_path):
    journal = Journal(tmp_path / "run.jsonl")
    with forward_logs(journal=journal):
        try:
            raise RuntimeError("inner")
        except RuntimeError:
            logging.getLogger("flowctl").error("failed", exc_info=True)
    assert "RuntimeError: inner" in lines(journal.path)[0]["message"]


def test_a_full_disk_stops_nobody(tmp_path):
    for path in (Path("/dev/full"), tmp_path / "not there" / "run.jsonl"):
        with Journal(path).span("data"):
            pass
