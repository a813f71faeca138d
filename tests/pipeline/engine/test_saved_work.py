"""Saved work and finished artifacts, and the inputs that they were made from."""

import pytest

from pipeline.engine import saved_work as module
from pipeline.engine.saved_work import INPUTS, changed_inputs, clear, read_by, write_inputs
from storage.store import Store
from storage.trees import remove_tree
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


@pytest.mark.parametrize("step", range(5))
def test_a_crash_while_work_is_cleared_leaves_none_that_does_not_say_what_it_is_of(tmp_path, monkeypatch, step):
    """Work without that would be resumed, whatever its inputs are now."""
    steps = iter(range(5))

    def killed(call):
        def made(*words, **options):
            if next(steps) == step:
                raise KeyboardInterrupt
            call(*words, **options)

        return made

    write_inputs(tmp_path, {"teacher": "a"})
    for name in ("saved.json", "request.json"):
        (tmp_path / name).touch()
    (tmp_path / "checkpoints").mkdir()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "remove_tree", killed(remove_tree))
        patch.setattr(module, "fsync_path", killed(module.fsync_path))
        patch.setattr(module.Path, "unlink", killed(module.Path.unlink))
        clear(tmp_path, but="request.json")
    assert changed_inputs(tmp_path, {"teacher": "b"}) == ["teacher"]
    clear(tmp_path, but="request.json")
    assert [path.name for path in tmp_path.iterdir()] == ["request.json"] and not (tmp_path / INPUTS).exists()
