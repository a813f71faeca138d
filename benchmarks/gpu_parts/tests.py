"""The tests that need a GPU (`pytest -m gpu`), where pytest is installed."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.gpu_parts import Context, Row

TESTS = ["tests/benchmarks/test_gpu.py"]


def measure(context: Context) -> Iterator[Row]:
    """Raises AssertionError with the end of pytest's output where a test fails."""
    if importlib.util.find_spec("pytest") is None:
        yield {"tests": "left out: pytest is not installed"}
        return
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "--no-header", "-p", "no:cacheprovider", *TESTS]
    done = subprocess.run(command, capture_output=True, text=True)
    counts = {name: int(count) for count, name in re.findall(r"(\d+) (passed|failed|error|deselected)", done.stdout)}
    yield {"tests": name_of(context), **{name: counts.get(name, 0) for name in ("passed", "failed", "deselected")}}
    if done.returncode not in ((0,) if context.cuda else (0, 5)):  # 5: none is left
        raise AssertionError(done.stdout[-4000:] + done.stderr[-1000:])


def name_of(context: Context) -> str:
    return "marked gpu" if context.cuda else "marked gpu; deselected without CUDA"
