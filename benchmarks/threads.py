"""Training on CPUs that other programs use too: threads that spin while they wait, and threads that sleep.

    python -m benchmarks.threads --seconds 4 --rounds 3

Images/s of the digits student's training step, for 1 and 2 threads that spin or sleep while they wait, with nothing
else and with two busy loops. Each figure comes from a separate process: OpenMP reads the policy once. The cells take
turns, and the table gives the median and the range of the rounds. Writes results/threads-cpu.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

RESULT = Path(__file__).with_name("results") / "threads-cpu.md"
WAITING = {
    "as flowctl sets it (passive after 10,000 spins)": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "active": {"OMP_WAIT_POLICY": "ACTIVE"},
}
CELLS = [(1, "passive"), *((2, policy) for policy in WAITING)]
BUSY_LOOPS = 2


def measure(threads: int, seconds: float) -> float:
    """Images/s of the training step, after half a second that does not count."""
    import pipeline  # noqa: F401, I001 — sets how threads wait, before torch reads it
    import torch

    from models.unet import UNetConfig
    from pipeline.outputs.networks import build
    from pipeline.recipe.load import load

    torch.set_num_threads(threads)
    student = load("nfm-digits").student
    fields = student.network.model_dump(exclude={"kind"})
    network, batch = build(UNetConfig(channels=1, size=8, classes=10, **fields), 0), student.training.batch
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, foreach=True)
    x, z = torch.rand(batch, 1, 8, 8), torch.randn(batch, 1, 8, 8)
    t, labels = torch.rand(batch), torch.randint(10, (batch,))
    between = (1 - t)[:, None, None, None] * x + t[:, None, None, None] * z

    def steps(duration: float) -> tuple[int, float]:
        begin, count = time.perf_counter(), 0
        while time.perf_counter() - begin < duration:
            (network(between, t, labels) - (z - x)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            count += 1
        return count, time.perf_counter() - begin

    steps(0.5)
    count, elapsed = steps(seconds)
    return count * batch / elapsed


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="measure one cell in this process, and print it")
    asked = parser.parse_args()
    if asked.threads:
        print(measure(asked.threads, asked.seconds))
        return
    figures, load_before = defaultdict(list), os.getloadavg()[0]
    for _ in range(asked.rounds):
        for loops in (0, BUSY_LOOPS):
            others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
            try:
                for threads, policy in CELLS:
                    figures[threads, policy, loops].append(_in_a_process(threads, policy, asked.seconds))
            finally:
                for other in others:
                    other.kill()
                    other.wait()
    RESULT.write_text(_page(figures, asked, load_before))
    print(RESULT.read_text())


def _in_a_process(threads: int, policy: str, seconds: float) -> float:
    words = [sys.executable, "-m", "benchmarks.threads", "--threads", str(threads), "--seconds", str(seconds)]
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    environment = {name: value for name, value in os.environ.items() if name not in names} | WAITING[policy]
    return float(subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout)


def _page(figures: dict, asked: argparse.Namespace, load_before: float) -> str:
    import torch

    rows = [
        f"| {threads} | {policy} | {_cell(figures[threads, policy, 0])} | "
        f"{_cell(figures[threads, policy, BUSY_LOOPS])} |"
        for threads, policy in CELLS
    ]
    return "\n".join(
        [
            "# Threads on a CPU that is shared",
            "",
            f"`python -m benchmarks.threads --seconds {asked.seconds:g} --rounds {asked.rounds}` on "
            f"{time.strftime('%Y-%m-%d')}; {os.cpu_count()} hyper-threads, Python {platform.python_version()}, torch "
            f"{torch.__version__}. Load average {load_before:.1f} before, {os.getloadavg()[0]:.1f} after: the machine "
            "had other work, so compare figures within a column, and no further than their ranges allow.",
            "",
            "Images/s of the digits student's training step; the median, and the range of the rounds in brackets.",
            "",
            f"| threads | OpenMP waits | nothing added | {BUSY_LOOPS} busy loops added |",
            "|---:|---|---:|---:|",
            *rows,
            "",
        ]
    )


def _cell(values: list[float]) -> str:
    return f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


if __name__ == "__main__":
    main()
