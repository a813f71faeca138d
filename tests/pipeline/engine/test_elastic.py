"""Why ranks died, from the output that they and torchrun leave."""

import pytest

from pipeline.engine import elastic

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
