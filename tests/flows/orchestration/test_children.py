"""`flowctl` in a child process: from any thread, and with our packages."""

import os
import shlex
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from flows.orchestration import children
from flows.orchestration.children import Child, run_children
from flows.session.recipes import sweep
from pipeline.recipe.load import load
from tests.environment.test_packages import write_foreign


def test_any_thread_may_start_a_child(home, monkeypatch):
    monkeypatch.setattr(children, "PROGRAM", (sys.executable, "-c", "import sys; sys.exit(3)"))
    child = Child(load("nfm-digits"), "nfm-digits")
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run_children, [child], print).result() == {child: 3}


def test_a_store_is_all_that_children_need_to_write_to(home, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    # As `flowctl gc` of another process may: the second child's recipe is written after that.
    remove = "import shutil, sys; from pathlib import Path; shutil.rmtree(Path(sys.argv[2]).parent)"
    monkeypatch.setattr(children, "PROGRAM", (sys.executable, "-c", remove))
    both = [Child(load("nfm-digits"), name) for name in ("a", "b")]
    assert run_children(both, print) == dict.fromkeys(both, 0)
    assert not list((home / "work").iterdir())


def test_an_error_before_the_next_child_ends_those_that_run(home, monkeypatch, tmp_path):
    """They are asked to stop, and are waited for: none goes on behind the back of who started them."""
    wait = (
        "import pathlib, signal, sys, time\n"
        f"said = pathlib.Path({str(tmp_path / 'said')!r})\n"
        "signal.signal(signal.SIGTERM, lambda *_: (said.write_text('saved'), sys.exit(1)))\n"
        "said.write_text('ready'); time.sleep(600)"
    )
    monkeypatch.setattr(children, "PROGRAM", (sys.executable, "-c", wait))
    first, second = (Child(load("nfm-digits", [f"name={name}"]), name) for name in ("a", "b"))

    def full(child, *given, **more):
        if child is first:
            return start(child, *given, **more)
        while not (tmp_path / "said").exists() or (tmp_path / "said").read_text() != "ready":
            time.sleep(0.01)
        raise OSError(28, "No space left on device")

    start = children._start
    monkeypatch.setattr(children, "_start", full)
    with pytest.raises(OSError):
        run_children([first, second], print, places=({}, {}))
    assert (tmp_path / "said").read_text() == "saved"


def test_the_last_words_of_children_are_passed_on(home, monkeypatch, capfd):
    speak = "for line in range(3000): print(line)"
    monkeypatch.setattr(children, "PROGRAM", (sys.executable, "-c", speak))
    both = [Child(load("nfm-digits", [f"name={name}"]), name) for name in ("a", "b")]
    run_children(both, print, places=({}, {}))
    said = capfd.readouterr().err.splitlines()
    for name in ("a", "b"):
        assert [line for line in said if line.startswith(name)] == [f"{name}: {line}" for line in range(3000)]


EDITOR = """
import os, shutil, sys
shutil.copy(sys.argv[2], os.environ["SEEN"])
print(os.environ["FLOWCTL_COMMAND"])
open(os.environ["EDITED"], "a").write("bank: {draws_per_image: 5}\\n")
"""


@pytest.mark.parametrize("words", [("run",), ("compare", "--run", "--json")])
def test_all_run_what_was_planned_whatever_becomes_of_the_file(flowctl, tiny, monkeypatch, tmp_path, capfd, words):
    rates = "student.training.lr=0.1,0.2"
    planned = [(recipe.model_dump(), point.overrides) for recipe, point in sweep(tiny, [rates])]
    monkeypatch.setattr(children, "PROGRAM", (sys.executable, "-c", EDITOR))
    seen = tmp_path / "seen"
    seen.mkdir()
    monkeypatch.setenv("SEEN", str(seen))
    monkeypatch.setenv("EDITED", tiny)
    flowctl(*words, tiny, "--set", rates)
    assert [load(str(file)).model_dump() for file in sorted(seen.iterdir())] == [recipe for recipe, _ in planned]
    recorded = [shlex.split(line) for line in capfd.readouterr().err.splitlines()]
    assert recorded == [
        ["flowctl", "run", tiny, *(word for change in changes for word in ("--set", change))] for _, changes in planned
    ]


def test_a_change_of_the_machine_comes_before_what_slurm_says(tmp_path):
    changes = ("compute.nproc=1", "student.training.lr=0.1")
    child = Child(load("nfm-digits", changes), "nfm-digits", changes, ("--until", "data"))
    file = tmp_path / "recipe.yaml"
    assert child.prepared(file) == ["run", str(file), "--set", "compute.nproc=1", "--until", "data"]
    assert load(str(file)) == child.recipe


def test_the_child_is_our_program_wherever_it_is_started(tmp_path):
    write_foreign(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([*children.PROGRAM, "--help"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "restartable DAG" in done.stdout, done.stderr
