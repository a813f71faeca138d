"""Slurm: the variables of a step, and the script with a fake srun and the fake stages."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.session.slurm import first_host, machines
from storage.errors import UsageError
from storage.store import Store
from tests.flows.conftest import ROOT
from tests.flows.faults import fault
from tests.shared import HANGS

SCRIPT = ROOT / "docs" / "slurm.sbatch"
STEP = {
    "SLURM_JOB_ID": "1234567",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NODELIST": "gpu[007-008]",
    "SLURM_NODEID": "1",
    "SLURM_GPUS_ON_NODE": "4",
}


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("gpu1", "gpu1"),
        ("gpu[007-010,12]", "gpu007"),
        ("a-1,b-2", "a-1"),
        ("rack2-[3,5]-ib,other", "rack2-3-ib"),
        ("10.0.0.[4-5]", "10.0.0.4"),
    ],
)
def test_the_first_host_of_a_list(nodes, host):
    assert first_host(nodes) == host


def test_a_step_says_where_its_machines_are():
    assert machines(STEP) == {"nproc": 4, "nnodes": 2, "node_rank": 1, "rendezvous": "gpu007:24567"}
    assert machines(STEP | {"SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_NUM_TASKS": "1"}) == {"nproc": 4}
    batch = {"SLURM_JOB_ID": "1", "SLURM_NNODES": "2", "SLURM_NODEID": "0", "SLURM_GPUS_ON_NODE": "4"}
    assert machines(batch) == machines({}) == {}  # the script itself, and another machine
    without = {name: value for name, value in STEP.items() if name != "SLURM_GPUS_ON_NODE"}
    assert machines(without).keys() == {"nnodes", "node_rank", "rendezvous"}
    with pytest.raises(UsageError) as raised:
        machines(STEP | {"SLURM_STEP_NUM_TASKS": "8"})
    assert raised.value.value == "8 tasks on 2 nodes"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SLURM_STEP_NUM_NODES", "abc"),
        ("SLURM_STEP_NUM_TASKS", ""),
        ("SLURM_JOB_ID", None),
        ("SLURM_NODEID", "-1"),
        ("SLURM_NODEID", "2"),
        ("SLURM_STEP_NODELIST", ""),
        ("SLURM_STEP_NODELIST", "[1-2"),
        ("SLURM_STEP_NODELIST", "a b"),
    ],
)
def test_a_variable_that_is_missing_or_odd_is_named(name, value):
    variables = STEP | {name: value}
    with pytest.raises(UsageError) as raised:
        machines({key: text for key, text in variables.items() if text is not None})
    assert raised.value.rule.startswith(name) and "--rdzv-endpoint" in raised.value.remedy


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), (4, 2, 1, "gpu007:24567")),
        (("--nproc", "2"), (2, 2, 1, "gpu007:24567")),
        (("--set", "compute.node_rank=0"), (4, 2, 0, "gpu007:24567")),
        (("--nnodes", "1"), (1, 1, 0, None)),
    ],
)
def test_run_takes_them_where_no_option_is_given(flowctl, tiny, monkeypatch, words, expected):
    compute = []
    monkeypatch.setattr(
        "flows.orchestration.launch.launch", lambda session, debug: compute.append(session.recipe.compute) or []
    )
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    batches = [f"--set={section}.training.batch=8" for section in ("teacher", "student")]
    result = flowctl("run", tiny, *batches, *words)
    assert result.exit_code == 0, result.output
    (one,) = compute
    assert (one.nproc, one.nnodes, one.node_rank, one.rendezvous) == expected


def test_a_step_with_a_task_for_each_gpu_is_refused(flowctl, tiny, monkeypatch):
    for name, value in (STEP | {"SLURM_STEP_NUM_TASKS": "8"}).items():
        monkeypatch.setenv(name, value)
    assert isinstance(fault(flowctl("run", tiny)), UsageError)


# -- the script ------------------------------------------------------------------------------------------------------


@pytest.fixture
def job(home, tiny, tmp_path):
    """Start the script as Slurm does: `job(FAKES=…)`. srun runs flowctl here, scontrol notes what it is asked for."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {
        "srun": 'while [[ $1 == --* ]]; do shift; done\nexec env SLURM_STEP_NUM_NODES=1 SLURM_STEP_NUM_TASKS=1 "$@"',
        "flowctl": f'exec {sys.executable} -m tests.flows.sweeping "$@"',
        "scontrol": f'echo "$@" >> {tmp_path}/scontrol.txt',
    }.items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)
    started = []

    def start(**environment):
        path = f"{programs}:{os.environ['PATH']}"
        process = subprocess.Popen(
            ["bash", str(SCRIPT), tiny],
            cwd=ROOT,
            env=os.environ | {"PATH": path, "SLURM_JOB_ID": "42"} | environment,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def test_the_script_is_valid_and_asks_for_what_flowctl_needs():
    assert subprocess.run(["bash", "-n", str(SCRIPT)]).returncode == 0
    asked = {
        line.split()[1].partition("=")[0] for line in SCRIPT.read_text().splitlines() if line.startswith("#SBATCH")
    }
    assert asked >= {"--nodes", "--ntasks-per-node", "--time", "--signal", "--requeue"}


@pytest.mark.slow
def test_a_job_at_its_time_limit_saves_is_requeued_and_resumes(job, home, tiny, tmp_path):
    process = job(FAKES='{"student": {"steps": 600, "seconds": 0.1}}')
    deadline = time.monotonic() + HANGS
    while not list(home.glob("work/student/*/saved.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)  # as --signal=B:TERM@300: to the script alone
    assert process.wait(timeout=HANGS) == 1
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 42\n"
    assert job().wait(timeout=HANGS) == 0
    student = next(artifact for artifact in Store(Path(home)).artifacts() if artifact.stage == "student")
    assert student.provenance.resumed == 1
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 42\n"


@pytest.mark.slow
def test_a_failed_job_is_not_requeued(job, tmp_path):
    assert job(FAKES='{"student": {"fail": "ValueError"}}').wait(timeout=HANGS) == 1
    assert not (tmp_path / "scontrol.txt").exists()
