"""Saved work and finished artifacts, and the inputs that they were made from."""

import pytest

from pipeline.engine.work import read_by
from storage.store import Store
from tests.storage.test_store import manifest


@pytest.mark.parametrize(
    ("created", "read"),
    [("08:59:59", True), ("09:00:00.5", True), ("09:00:01.5", False), ("09:30:00", False), ("10:00:00", False)],
)
def test_an_artifact_was_made_from_the_inputs_that_were_there_when_its_stage_began(tmp_path, created, read):
    """At nine, an hour before it was created. An input of half past nine replaced what it has read."""
    out = Store(tmp_path).work("teacher", "ab" * 32)
    out.mkdir(parents=True)
    made = manifest(out, created="2026-01-31T10:00:00.000000+00:00", wall_seconds=3600)
    assert read_by(made, [manifest(out, created=f"2026-01-31T{created}+00:00")]) == read
    assert read_by(made, [])


def test_nothing_is_of_an_input_that_came_after_it(tmp_path):
    out = Store(tmp_path).work("teacher", "ab" * 32)
    out.mkdir(parents=True)
    made = manifest(out, created="2026-01-31T10:00:00.200000+00:00", wall_seconds=0.1)
    assert not read_by(made, [manifest(out, created="2026-01-31T10:00:00.300000+00:00")])
