"""Threads and memory that a process may use: the recipe, OMP_NUM_THREADS, affinity and cgroups decide."""

import logging
import os
import subprocess
import sys

import pytest
import torch

from pipeline.recipe.sections import Compute, _cpus, _memory
from pipeline.runtime.device import prepare


def system(folder, cgroup: str, **files: str):
    """A root directory with /proc/self/cgroup, and files of /sys/fs/cgroup by their path with `__` for `/`."""
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        path = folder / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("cgroup", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2.0),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "100000 100000\n", "a/cpu.max": "400000 100000\n"}, 1.0),
        ("0::/of/the/host\n", {"cpu.max": "300000 100000\n"}, 3.0),  # in a container the path may be the host's
        (
            "4:cpu,cpuacct:/job\n2:memory:/job\n0::/job\n",
            {"cpu,cpuacct/job/cpu.cfs_quota_us": "50000\n", "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n"},
            0.5,
        ),
        ("4:cpuacct,cpu:/x\n", {"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"}, 2.5),
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("2:memory:/\n", {"memory/cpu.max": "100000 100000"}, None),  # another controller's
        ("0::/\n", {"cpu.max": "nonsense"}, None),
        ("0::/\n", {}, None),
    ],
)
def test_quotas_of_cgroups(tmp_path, cgroup, files, quota):
    assert _cpus.cgroup_quota(system(tmp_path, cgroup, **files)) == quota


@pytest.mark.parametrize(
    ("cgroup", "files", "limit"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "1048576\n"}, 2**20),
        ("0::/\n", {"memory.max": "max\n"}, None),
        ("4:memory:/job\n", {"memory/job/memory.limit_in_bytes": "4194304\n"}, 2**22),
        ("4:memory:/job\n", {"memory/job/memory.limit_in_bytes": f"{2**63 - 4096}\n"}, None),  # version 1's no limit
    ],
)
def test_memory_is_the_machines_or_the_cgroups(tmp_path, cgroup, files, limit):
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert _memory.usable_memory(system(tmp_path, cgroup, **files)) == (limit or physical)


def test_ranks_of_a_machine_share_its_memory_for_banks():
    alone, four = (Compute(bank_memory_share=0.25, nproc=nproc).bank_bytes for nproc in (1, 4))
    assert alone == pytest.approx(0.25 * _memory.usable_memory()) and four == pytest.approx(alone / 4)


def test_no_cgroups_are_no_limit(tmp_path):
    assert _cpus.cgroup_quota(tmp_path) is None


@pytest.mark.parametrize(
    ("affinity", "quota", "cpus"), [(64, "200000", 2), (2, "6400000", 2), (8, "max", 8), (8, "5000", 1)]
)
def test_the_smaller_of_affinity_and_quota_counts(tmp_path, monkeypatch, affinity, quota, cpus):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(affinity)), raising=False)
    assert _cpus.usable_cpus(system(tmp_path, "0::/\n", **{"cpu.max": f"{quota} 100000"}))[0] == cpus


@pytest.mark.parametrize(
    ("openmp", "compute", "threads"),
    [
        (None, {}, 6),
        (None, {"nproc": 4}, 1),
        (None, {"threads": 3, "nproc": 4}, 3),
        ("5", {"nproc": 4}, 5),
        ("5", {"threads": 2}, 2),
        ("4,2", {}, 4),  # for nested regions
        ("0", {}, 6),
        ("nonsense", {}, 6),
        ("", {}, 6),
    ],
)
def test_the_recipe_comes_first_then_openmp_then_the_cpus(monkeypatch, openmp, compute, threads):
    monkeypatch.setattr("pipeline.recipe.sections._compute.usable_cpus", lambda: (6, "affinity"))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if openmp is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", openmp)
    assert Compute(**compute).cores == threads


def test_torch_gets_the_number_and_the_log_says_it(caplog):
    before = torch.get_num_threads()
    with caplog.at_level(logging.INFO, "pipeline"):
        prepare(Compute(device="cpu", threads=3))
    try:
        assert torch.get_num_threads() == 3
        assert "3 CPU threads (compute.threads)" in caplog.messages
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("theirs", "waiting"),
    [
        ({}, "PASSIVE 10000"),
        ({"OMP_WAIT_POLICY": ""}, "PASSIVE 10000"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE None"),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, "PASSIVE None"),
        ({"GOMP_SPINCOUNT": "7"}, "PASSIVE 7"),
    ],
)
def test_idle_threads_sleep_unless_the_user_says_otherwise(theirs, waiting):
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    environment = {name: value for name, value in os.environ.items() if name not in names} | theirs
    code = (
        "import sys, pipeline.runtime.seeds, os\n"  # which imports torch
        "assert 'torch' in sys.modules; print(*map(os.environ.get, ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == f"{waiting}\n", done.stderr
