"""Kill -9 at any moment, again and again: the end is that of a run that nothing disturbed. See benchmarks/crash.py."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.shared import HANGS
from tests.tiny import TINY

ROOT = Path(__file__).parents[2]


def disturbed(tmp_path: Path, kills: int, *recipes: str) -> dict:
    """The harness in a process of its own, which nothing else has started threads in."""
    out = tmp_path / "crash.json"
    command = [sys.executable, "-m", "benchmarks.crash", "--kills", str(kills), "--out", str(out)]
    done = subprocess.run(
        [*command, *(["--recipes", *recipes] if recipes else [])],
        cwd=ROOT,
        text=True,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr  # which names the seed
    return json.loads(out.read_text())


def test_killed_three_times(tmp_path):
    found = disturbed(tmp_path, 3, "LOOM")
    assert found["kills"] == 3 and not found["unequal"] and found["runs"] >= 1


@pytest.mark.slow
def test_killed_a_hundred_and_twenty_times(tmp_path):
    """`python -m benchmarks.crash` does it three hundred times and more, and writes down what happened."""
    found = disturbed(tmp_path, 120)
    assert found["kills"] == 120 and not found["unequal"]
    assert sum(row["saved"] for row in found["stages"].values()) >= 30  # there was something to resume from
    hit = [stage for stage, row in found["stages"].items() if row["kills"]]
    assert len(hit) >= 12 and {kind for row in found["stages"].values() for kind in row["kills"]} == {
        "moment",
        "call",
        "power",
    }


# -- the launcher of several ranks, and a Prefect worker ---------------------------------------------------------------

LONGER = [
    *TINY,
    "bank.shard=64",
    "student.network.dropout=0",
    "student.training.images=6400",
    "compute.checkpoint_seconds=0.05",
    "compute.nproc=2",
]


def command(home: Path, *more: str) -> subprocess.Popen:
    words = [sys.executable, "-m", "flows.cli", "run", "nfm-digits", "--until", "student", *more]
    for override in LONGER:
        words += ["--set", override]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    return subprocess.Popen(
        words,
        cwd=ROOT,
        env={**environment, "FLOWCTL_HOME": str(home), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def weights(home: Path) -> dict[str, str]:
    [manifest] = (home / "artifacts/student").glob("*/artifact.json")
    return {file["path"]: file["sha256"] for file in json.loads(manifest.read_text())["files"]}


def workers(home: Path) -> list[int]:
    """Ranks that work in this store, whoever their parent is."""
    listed = subprocess.run(["ps", "-ww", "-eo", "pid=,args="], capture_output=True, text=True).stdout.splitlines()
    return [int(line.split()[0]) for line in listed if "pipeline.engine.worker" in line and str(home) in line]


@pytest.mark.slow
def test_the_launcher_of_two_ranks_is_killed_and_they_leave_with_it(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    output, _ = command(whole).communicate(timeout=HANGS)
    assert weights(whole), output
    first = command(killed)
    deadline = time.monotonic() + HANGS
    while not list((killed / "work/student").glob("*/saved.json")):
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    assert workers(killed)  # they are there, and may leave as soon as the launcher is gone
    first.send_signal(signal.SIGKILL)
    first.communicate()
    second = command(killed)  # at once: it waits for them, or they are gone
    output, _ = second.communicate(timeout=HANGS)
    assert second.returncode == 0 and "student: resumed" in output, output
    assert not workers(killed)
    assert weights(killed) == weights(whole)
