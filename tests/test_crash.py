"""The headline promise: kill -9 anywhere, rerun the command, end with the same bits.

The real command runs as a process and is killed in a stage as soon as that has saved something. Digests of weights and
bank must equal those of stages that nothing interrupted. tests/reliability kills each stage at any moment.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.session.session import needed_for
from pipeline.engine.dag import build
from pipeline.engine.execute import execute
from pipeline.recipe.load import load
from storage.store import Store
from tests.shared import HANGS
from tests.tiny import TINY

LONG_BANK = ["bank.draws_per_image=8", "bank.shard=64", "compute.checkpoint_seconds=0.1"]  # 25 shards
LONGER = [*LONG_BANK, "teacher.training.images=8000", "student.training.images=8000"]
COMPARED = {"teacher": "weights.safetensors", "bank": "bank.zarr/z", "student": "weights.safetensors"}

STARTED: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def no_process_outlives_the_test():
    yield
    for process in STARTED:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    STARTED.clear()


def start(home: Path, changes: list[str], until: str = "student") -> subprocess.Popen:
    command = [sys.executable, "-m", "flows.cli", "run", "nfm-digits", "--until", until]
    for override in TINY + changes:
        command += ["--set", override]
    environment = {**os.environ, "FLOWCTL_HOME": str(home), "OMP_NUM_THREADS": "1"}
    environment.pop("PREFECT_API_URL", None)
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    STARTED.append(process)
    return process


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=HANGS)
    assert process.returncode == 0, output
    return output


def kill_once_saved(process: subprocess.Popen, home: Path, stage: str) -> int:
    """kill -9 as soon as the stage says that it has saved something; how far it had come."""
    deadline = time.monotonic() + HANGS
    while time.monotonic() < deadline:
        assert process.poll() is None, f"ended before {stage} could be killed: {process.communicate()[0]}"
        for saved in (home / "work" / stage).glob("*/saved.json"):
            done = json.loads(saved.read_text())["done"]
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return done
        time.sleep(0.01)
    raise AssertionError(f"{stage} saved nothing")


def digests(home: Path, until: str) -> dict[str, dict[str, str]]:
    found = {}
    for stage in list(COMPARED)[: list(COMPARED).index(until) + 1]:
        payload = COMPARED[stage]
        [manifest] = (home / "artifacts" / stage).glob("*/artifact.json")
        files = json.loads(manifest.read_text())["files"]
        found[stage] = {file["path"]: file["sha256"] for file in files if file["path"].startswith(payload)}
        assert found[stage]
    return found


def undisturbed(home: Path, changes: list[str], until: str) -> None:
    """The artifacts, in this process."""
    recipe, store, artifacts = load("nfm-digits", TINY + changes), Store(home), {}
    store.prepare()
    for name, node in needed_for(until, build(recipe, home / "cache")).items():
        artifacts[name] = execute(node, {role: artifacts[role] for role in node.inputs}, store, recipe.compute).artifact


@pytest.mark.slow
@pytest.mark.parametrize(
    ("killed", "changes"),
    [(["bank"], LONG_BANK), (["teacher", "bank", "student"], LONGER)],
    ids=["once", "three times"],
)
def test_killed_and_started_again_it_ends_with_the_same_bits(tmp_path, migrated, killed, changes):
    whole, disturbed, until = tmp_path / "a", tmp_path / "b", killed[-1]
    undisturbed(whole, changes, until)
    migrated(disturbed)
    for stage in killed:
        assert kill_once_saved(start(disturbed, changes, until), disturbed, stage) > 0
        # What was finished before stays published, what was saved is still there.
        assert list((disturbed / "work" / stage).glob("*/saved.json"))
    output = finish(start(disturbed, changes, until))
    assert "resumed" in output
    assert digests(disturbed, until) == digests(whole, until)
    for stage in set(killed) - {"student"}:
        [manifest] = (disturbed / "artifacts" / stage).glob("*/artifact.json")
        assert json.loads(manifest.read_text())["provenance"]["resumed"] >= 1


@pytest.mark.slow
def test_terminated_gently_it_saves_says_so_and_goes_on(tmp_path):
    process = start(tmp_path, LONGER)
    deadline = time.monotonic() + HANGS
    while not list((tmp_path / "work" / "teacher").glob("*/progress.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=HANGS)
    assert process.returncode == 1
    assert "error: Stopped in stage teacher (SIGTERM)" in output
    assert list((tmp_path / "work" / "teacher").glob("*/saved.json"))
    assert "resumed" in finish(start(tmp_path, LONGER))
