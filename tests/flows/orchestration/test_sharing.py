"""Several processes in one store: one works, the others wait with a word about it, and take what it has made."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.session.session import Session
from pipeline.recipe.load import load
from storage.store import Store
from tests.flows.conftest import ROOT
from tests.shared import HANGS

UNTIL = ("--until", "bank")
ALONE = """
import sys
from flows.session.display import Lines
from flows.session.interrupts import graceful_shutdown
from flows.session.recording import recording, run_stages
from flows.session.session import Session
from pipeline.engine.plan import plan
from pipeline.recipe.load import load
from tests.flows import fakes

fakes.install()
session = Session.open(load(sys.argv[1]), until="bank", display=Lines())
session.store.prepare()
with recording(session, plan(session.nodes, session.store)), graceful_shutdown(session.stop, session.display.note):
    run_stages(session)
"""  # `flowctl run RECIPE --until bank` without Prefect, which takes its time to start


@pytest.fixture
def alone(home):
    """Start one that makes a recipe's stages without Prefect."""
    started = []

    def start(recipe: str | Path, seconds: float = 0.1) -> subprocess.Popen:
        environment = os.environ | {"FAKES": json.dumps({"teacher": {"steps": 5, "seconds": seconds}})}
        process = subprocess.Popen(
            [sys.executable, "-c", ALONE, str(recipe)], cwd=ROOT, env=environment, text=True, stderr=subprocess.PIPE
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def recipes(tiny: str) -> list[str]:
    """The same recipe twice, and one that shares its teacher."""
    other = Path(tiny).with_name("other.yaml")
    other.write_text(
        Path(tiny).read_text().replace("name: tiny", "name: other").replace("draws_per_image: 1", "draws_per_image: 2")
    )
    return [tiny, tiny, str(other)]


def forward_logs(process: subprocess.Popen, word: str) -> str:
    """The next line on its stderr that holds `word`."""
    for line in process.stderr:
        if word in line:
            return line
    raise AssertionError(f"it ended without {word!r}")


def share_a_teacher(start, recipes: list[str], home: Path) -> None:
    """All wait for the teacher's lock, held here; then one of them makes the teacher, and all use that."""
    store, node = Store(home), Session.open(load(recipes[0])).nodes["teacher"]
    with store.lock("teacher", node.fingerprint, pytest.fail):
        processes = [start(recipe) for recipe in recipes]
        for process in processes:
            assert forward_logs(process, "teacher: waiting").startswith(
                f"teacher: waiting for process {os.getpid()} on "
            )
    said = [process.communicate(timeout=HANGS)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    assert sorted(line.split(" ")[1] for text in said for line in text.splitlines() if "teacher: r" in line) == [
        "reused",
        "reused",
        "run",
    ]
    assert "bank: run" in said[2]  # of its own, by the shared teacher
    assert sum("bank: run" in text for text in said[:2]) == 1
    made = [root.parent.name for root in store.roots()]
    assert (made.count("data"), made.count("teacher"), made.count("bank")) == (1, 1, 2)
    assert store.find("teacher", node.fingerprint).provenance.resumed == 0


@pytest.mark.slow
def test_one_makes_the_teacher_and_the_others_use_it(alone, recipes, home):
    share_a_teacher(alone, recipes, home)


@pytest.mark.slow
def test_whole_runs_share_a_teacher(program, recipes, home):
    share_a_teacher(
        lambda recipe: program("run", recipe, *UNTIL, FAKES='{"teacher": {"steps": 5, "seconds": 0.1}}'), recipes, home
    )


@pytest.mark.slow
def test_whoever_waits_can_be_stopped(alone, recipes, home):
    node = Session.open(load(recipes[0])).nodes["teacher"]
    with Store(home).lock("teacher", node.fingerprint, pytest.fail):
        process = alone(recipes[0])
        forward_logs(process, "waiting")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=HANGS)
    assert process.returncode != 0 and f"while waiting for process {os.getpid()} on" in said


def test_one_takes_over_from_one_that_was_killed(alone, recipes, home):
    first = alone(recipes[0], seconds=1.0)
    deadline = time.monotonic() + HANGS
    while not list((home / "work/teacher").glob("*/saved.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    second = alone(recipes[1])
    first.kill()
    first.wait()
    _, said = second.communicate(timeout=HANGS)
    assert second.returncode == 0 and "teacher: resumed" in said, said
    facts = json.loads((home / "locks" / next(p.name for p in (home / "locks").glob("teacher-*"))).read_text())
    assert facts["pid"] == second.pid
