"""Why ranks died, from the output that they and torchrun leave, and which of their errors is the stage's."""

import errno
import json

import pytest

from pipeline.engine import elastic, worker
from storage.errors import RecipeError
from tests.shared import without_hard_links

OUTPUT = """error: The package must be flowctl's.
W1129 08:41:57.127000 16744 api.py:1028] Sending process 16749 closing signal SIGTERM
Traceback (most recent call last):
  File "<frozen runpy>", line 198, in _run_module_as_main
ChildFailedError:
Failures:
[1]:
  rank      : 0 (local_rank: 0)
  exitcode  : {other} (pid: 16749)
Root Cause (first observed failure):
[0]:
  rank      : 1 (local_rank: 1)
  exitcode  : {cause} (pid: 16750)
"""


@pytest.mark.parametrize(
    ("other", "cause", "words"),
    [
        (-15, 1, "error: The package must be flowctl's."),  # torchrun ended the other rank
        (-15, -9, "signal 9 (SIGKILL)"),
        (1, -11, "signal 11 (SIGSEGV)"),
    ],
)
def test_the_cause_is_that_of_the_rank_that_failed_first(tmp_path, other, cause, words):
    (tmp_path / elastic.OUTPUT).write_text(OUTPUT.format(other=other, cause=cause))
    assert words in elastic._cause(tmp_path)


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP])
def test_the_first_error_is_the_outcome_on_a_disk_without_hard_links_too(tmp_path, monkeypatch, number):
    without_hard_links(monkeypatch, number)
    assert [worker._report(tmp_path, error) for error in (RecipeError("a", 1, "b"), OSError(2, "c"))] == [0, 0]
    error = elastic.error_from(json.loads((tmp_path / elastic.OUTCOME).read_bytes()))
    assert isinstance(error, RecipeError) and error.value == 1
    (tmp_path / elastic.OUTCOME).unlink()
    assert worker._report(tmp_path, ValueError("to be tried again")) == 1
    assert not (tmp_path / elastic.OUTCOME).exists()
