"""The tests that need a GPU (`pytest -m gpu`), where pytest is installed, but for those that are parts themselves."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

from benchmarks.gpu_parts import Context, Row

TESTS = "tests/benchmarks/test_gpu.py"
#: What these check, the parts `networks` and `repeat` check.
PARTS = ("test_networks_on_the_gpu_are_those_on_the_cpu", "test_trainings_on_the_gpu_end_with_the_same_bits")


def measure(context: Context) -> Iterator[Row]:
    """A row for each test. Raises AssertionError with the end of pytest's output where one fails or the time ends."""
    if importlib.util.find_spec("pytest") is None:
        yield {"tests": "left out: pytest is not installed"}
        return
    command = [sys.executable, "-u", "-m", "pytest", "-m", "gpu", "-vv", "--color=no", "--no-header"]
    command += ["-p", "no:cacheprovider", *(f"--deselect={TESTS}::{name}" for name in PARTS), TESTS]
    code: int | None = None
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=max(0.0, context.left))
        output, code = done.stdout.decode(), done.returncode
    except subprocess.TimeoutExpired as stopped:
        output = (stopped.stdout or b"").decode()
    ended = outcomes(output)
    yield from ({"test": name, "outcome": outcome} for name, outcome in ended.items())
    counts = Counter(ended.values())
    yield {"tests": name_of(context), **{outcome: counts[outcome] for outcome in ("passed", "failed", "not ended")}}
    if code not in ((0,) if context.cuda else (0, 5)):  # 5: none is left
        raise AssertionError(("the time ended\n" if code is None else "") + output[-5000:])


def outcomes(output: str) -> dict[str, str]:
    """Each test that pytest's output names, and how it ended; it may have been cut off within the last of them."""
    lines = re.findall(r"^(\S+::\S+) *(PASSED|FAILED|ERROR|SKIPPED)?", output.partition("\n=====")[0], re.MULTILINE)
    return {name.partition("::")[2]: outcome.lower() or "not ended" for name, outcome in lines}


def name_of(context: Context) -> str:
    return "marked gpu" if context.cuda else "marked gpu; deselected without CUDA"
