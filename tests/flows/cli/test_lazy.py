"""What a command does not need is not imported: help and a run with nothing to do start neither torch nor Prefect."""

import os
import subprocess
import sys

import pytest

from flows.session.recipes import load
from tests.flows.conftest import ROOT

PROBE = """
import sys
from tests.flows import fakes
fakes.install()
sys.argv = ["flowctl", *sys.argv[1:]]
from flows.cli import main
try:
    main()
except SystemExit as end:
    print("CODE", end.code)
print("LOADED", *sorted({name.partition(".")[0] for name in sys.modules} & {HEAVY}))
"""


def _loaded(*words: str, heavy: set[str]) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.replace("{HEAVY}", repr(heavy)), *words],
        cwd=ROOT,
        env=os.environ.copy(),
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert "CODE 0" in done.stdout, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_help_imports_next_to_nothing(home):
    code = "from flows.cli import app; import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "prefect", "zarr", "numpy", "scipy", "pydantic", "yaml", "PIL"} & set(done.stdout.split())


@pytest.mark.parametrize("words", [("run",), ("plan",), ("results",)])
def test_nothing_to_run_needs_neither_torch_nor_prefect(finished, tiny, words):
    assert _loaded(*words, tiny, heavy={"torch", "prefect", "scipy", "sklearn"}) == set()


def test_nothing_to_run_says_so(flowctl, finished, tiny):
    result = flowctl("run", tiny)
    assert result.exit_code == 0 and "Nothing to run: all 7 stages" in result.stdout
    assert [line.split()[:3] for line in result.stdout.splitlines() if line.startswith("student  ")][-2:] == [
        ["student", "1", "9.0"],
        ["student", "2", "4.5"],
    ]
    assert max(len(line) for line in result.stdout.splitlines() if "Report: " not in line) <= 100
    assert f"Report: {finished.store.home}" in result.stdout
    assert not (finished.store.home / "prefect").exists()


def test_results_of_other_runs_are_recorded_once_as_a_run_of_the_new_name(flowctl, finished, tiny):
    named = ("run", tiny, "--set", "name=other", "--until", "bank")
    for _ in range(2):
        result = flowctl(*named)
        assert result.exit_code == 0 and "Nothing to run: all 3 stages" in result.stdout
    assert load("other") == load(tiny, ["name=other"])
    assert len(list((finished.store.home / "runs").glob("run-*.json"))) == 1
    assert flowctl("plan", "other", "--until", "bank").exit_code == 0
