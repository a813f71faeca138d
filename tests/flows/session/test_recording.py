"""A stage of a run finds the artifacts that it reads, also while another process replaces one."""

import pytest

from flows.session import recording
from storage.artifact import MANIFEST
from storage.errors import DamageError, StageFailed


@pytest.fixture
def teacher(finished):
    """Where the input `teacher` of the bank lies."""
    (root,) = finished.store.directories("teacher", finished.nodes["teacher"].fingerprint)
    return root


def inputs(session):
    return recording._inputs(session.nodes["bank"], session)


def test_an_input_that_is_replaced_in_this_moment_is_looked_for_again(finished, teacher, monkeypatch):
    before, aside = inputs(finished), teacher.with_name("aside")
    teacher.rename(aside)
    monkeypatch.setattr(recording.time, "sleep", lambda seconds: aside.rename(teacher))
    assert inputs(finished) == before
    manifest, aside = teacher / MANIFEST, teacher / "aside"
    manifest.rename(aside)  # as where the directory goes between the look at its name and into it
    monkeypatch.setattr(recording.time, "sleep", lambda seconds: aside.rename(manifest))
    assert inputs(finished) == before


def test_an_input_that_stays_away_or_damaged_ends_the_run(finished, teacher):
    (teacher / MANIFEST).write_text("{")
    with pytest.raises(DamageError):
        inputs(finished)
    teacher.rename(teacher.with_name("aside"))
    with pytest.raises(StageFailed):
        inputs(finished)
