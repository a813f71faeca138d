"""The speed of a device: the table, the CPU's name, and the time of counted work."""

import time

import pytest
import torch

from pipeline.cost import speeds
from pipeline.cost.flops import Work
from pipeline.cost.speeds import (
    BANDWIDTH_SHARE,
    FULL_SHARE,
    HALF_SHARE,
    MEMORY_THREADS,
    SIDE,
    SMALL_SIDE,
    Speed,
    cpu_name,
    gpu_speed,
    speed_of,
)
from pipeline.recipe.sections import Compute


def test_products_traffic_and_starts_follow_each_other():
    speed = Speed(full=1e9, half=4e9, bandwidth=1e8, start=1e-3)
    work = Work(flops=2e9, traffic=5e7, kernels=100)
    assert speed.seconds(work) == pytest.approx(2 + 0.5 + 0.1)
    assert speed.seconds(work, "bfloat16") == pytest.approx(0.5 + 0.5 + 0.1)


@pytest.mark.parametrize(
    "name, full, half, bandwidth",
    [
        ("NVIDIA H100 80GB HBM3", 67e12, 989e12, 3.35e12),
        ("NVIDIA H100 PCIe", 51e12, 756e12, 2.0e12),
        ("NVIDIA A100-SXM4-80GB", 19.5e12, 312e12, 2.04e12),
        ("NVIDIA L40S", 91.6e12, 362e12, 0.86e12),
        ("NVIDIA L4", 30.3e12, 121e12, 0.3e12),
    ],
)
def test_a_gpu_has_the_peaks_of_its_own_name(name, full, half, bandwidth):
    speed = gpu_speed(name)
    assert speed.full == pytest.approx(FULL_SHARE * full) and speed.half == pytest.approx(HALF_SHARE * half)
    assert speed.bandwidth == pytest.approx(BANDWIDTH_SHARE * bandwidth)


def test_cpus_of_one_trade_name_are_told_apart_by_model(tmp_path):
    info = tmp_path / "cpuinfo"
    first = "processor : 0\nmodel : 207\nmodel name : Xeon\nstepping : 2\n"
    info.write_text(first + "\n" + first.replace("processor : 0", "processor : 1"))
    assert cpu_name(info) == "Xeon 207 2"
    assert cpu_name(tmp_path / "none")


def test_the_speed_of_a_cpu_is_measured_once_on_one_thread(tmp_path, monkeypatch):
    (tmp_path / "cache").mkdir()
    calls = []
    threads = torch.get_num_threads()
    monkeypatch.setattr(
        speeds, "measure_cpu", lambda: calls.append(torch.get_num_threads()) or Speed(1.0, 2.0, 3.0, 4.0)
    )
    one, many = (speed_of(Compute(device="cpu", threads=threads), tmp_path) for threads in (1, 16))
    assert one == Speed(1.0, 2.0, 3.0, 4.0) and many == Speed(16.0, 32.0, 3.0 * MEMORY_THREADS, 4.0)
    speed_of(Compute(device="cpu"), tmp_path / "no store")
    assert calls == [1, 1] and not (tmp_path / "no store").exists() and torch.get_num_threads() == threads


def test_a_measured_cpu_is_no_slower_than_a_calculator():
    speed = speeds._one_thread()
    assert speed.full > 1e8 and speed.half > 1e7 and speed.bandwidth > 1e8 and 0 < speed.start < 1e-3


def test_waiting_for_other_programs_is_no_time_of_a_processor():
    assert speeds._best(lambda: time.sleep(0.02), times=2) < 0.01


@pytest.mark.parametrize("seconds, sides", [(1e-4, [SMALL_SIDE, SIDE]), (1e-1, [SMALL_SIDE])])
def test_a_product_that_takes_long_is_not_made_larger(monkeypatch, seconds, sides):
    asked = []
    monkeypatch.setattr(speeds, "_best", lambda call, times: asked.append(len(call.args[0])) or seconds)
    assert speeds._of_products(torch.bfloat16) == pytest.approx(2 * sides[-1] ** 3 / seconds)
    assert asked == sides
