"""How fast a student trains and samples, against torchcfm's U-Net in its training loop; and what training waits for.

    pip install --no-deps torchcfm==1.0.7      # the peer; without it the comparison is left out, and the page says so
    python -m benchmarks.engine [--quick] [--device cuda] [--threads 2]

writes benchmarks/results/engine-<device>.{json,md}. Both sides have the CIFAR-10 network of 35,746,307 weights, checked
to be the same function, or a narrow one; the same batch and precision; and take turns in one process.

A training step is all of it: data, forward pass, loss, backward pass, clipping, Adam, averaged weights. Ours is the
pipeline's own loop with deterministic kernels; the peer's is that of its CIFAR-10 example, its images handed to it.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.engine_data import cases, shares
from benchmarks.engine_memory import estimated, measured
from benchmarks.engine_report import markdown
from benchmarks.engine_sides import (
    CALLS,
    COUNTS,
    INSTALL,
    NETWORKS,
    Ours,
    Peer,
    Setting,
    largest_difference,
    peer_version,
)
from benchmarks.engine_turns import Times, against, turns
from benchmarks.publish import command_line, publish
from benchmarks.timing import Rows, processor
from pipeline.training._clocks import TIME_SHARE

RESULTS = Path("benchmarks/results")
INTERVAL = 60.0  # seconds between checkpoints, as in the CIFAR-10 recipes


# --- measuring


def settings(device: torch.device, quick: bool) -> Iterator[tuple[Setting, int, int]]:
    """The comparisons, with their rounds of training steps and of sampling; none where it would take
    minutes a round."""
    if device.type == "cuda":
        for batch in (128,) if quick else (128, 256):
            for compiled in (False, True):
                yield Setting("cifar10", batch, "bfloat16", device, compiled), 10 if quick else 30, 5
        return
    for precision in ("float32", "bfloat16"):
        for batch in (8, 32):
            yield Setting("narrow", batch, precision, device), 10 if batch == 8 else 5, 2 if batch == 32 else 0
    if not quick:
        for precision in ("float32", "bfloat16"):
            for batch in (8, 32):
                yield Setting("cifar10", batch, precision, device), 5 if batch == 8 else 2, 2 if batch == 8 else 0


def compare(setting: Setting, rounds: int, sampling_rounds: int) -> Rows:
    """A row on the training step and, where there are rounds for it, one on sampling."""
    with tempfile.TemporaryDirectory() as folder:
        ours = Ours(setting, Path(folder))
        sides: dict[str, Ours | Peer] = {"ours": ours} | ({"peer": Peer(setting)} if peer_version() else {})
        for side in sides.values():
            assert side.weights == COUNTS[setting.network], f"{side.weights} weights, not {COUNTS[setting.network]}"
        steps = {name: side.step for name, side in sides.items()}
        rows = [_row("training step", setting, turns(steps, rounds, warmup=1))]
        if sampling_rounds:
            z = torch.randn(setting.batch, *setting.shape.shape, device=setting.device)
            samplers = {name: side.sampler() for name, side in sides.items()}
            works = {name: lambda sampler=sampler: sampler(z) for name, sampler in samplers.items()}
            # On a CPU the ten calls of a sample warm it up by themselves.
            times = turns(works, sampling_rounds, warmup=int(setting.device.type == "cuda"))
            rows.append(_row(f"samples, Euler, {CALLS} calls", setting, times))
    return rows


def _row(what: str, setting: Setting, times: dict[str, Times]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "what": what,
        "network": setting.network,
        "batch": setting.batch,
        "precision": setting.precision,
        "compiled": setting.compiled,
        "rounds": len(times["ours"].wall),
    }
    for name, side in times.items():
        row |= {
            f"{name}_s": side.best,
            f"{name}_median_s": side.median,
            f"{name}_images_per_second": setting.batch / side.best,
        }
    if "peer" in times:
        row |= against(times["peer"], times["ours"])
    print({name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}, flush=True)
    return row


def checkpoint(setting: Setting) -> dict[str, float]:
    """Seconds and MiB of one checkpoint, and the share of a long training that all of them take."""
    with tempfile.TemporaryDirectory() as folder:
        ours = Ours(setting, Path(folder))
        ours.step()  # Adam's moments
        seconds = []
        for _ in range(2):
            began = time.perf_counter()
            ours.save()
            seconds.append(time.perf_counter() - began)
        size = max(file.stat().st_size for file in Path(folder).rglob("*.safetensors")) / 2**20
    cost = min(seconds)
    return {
        "seconds": cost,
        "mib": size,
        "interval": max(INTERVAL, cost / TIME_SHARE),
        "share": cost / (max(INTERVAL, cost / TIME_SHARE) + cost),
    }


def memory(rows: Rows, device: torch.device) -> None:
    """Add the estimated and the measured memory to each training row of the largest network."""
    for row in rows:
        if row["what"] == "training step" and row["network"] == rows[-1]["network"] and not row["compiled"]:
            setting = Setting(row["network"], row["batch"], row["precision"], device)
            row |= {"estimate_mib": estimated(setting), "ours_mib": measured("ours", setting)}
            if peer_version():
                row["peer_mib"] = measured("peer", setting)
            print(
                {name: row[name] for name in ("network", "batch", "precision", "estimate_mib", "ours_mib")}, flush=True
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--quick", action="store_true", help="on a CPU the narrow network alone; fewer rounds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device, began = torch.device(args.device), time.perf_counter()
    result: dict[str, Any] = {
        "command": command_line("engine"),
        "machine": {
            "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
            "processor": processor(),
            "threads": args.threads,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "quick": args.quick,
        "peer": peer_version(),
    }
    if peer_version():
        result["largest_difference"] = largest_difference(NETWORKS["cifar10"])
        assert result["largest_difference"] < 1e-4, "ours and the peer's network must be the same function"
    else:
        print(f"torchcfm is not installed: ours alone is timed. To compare: {INSTALL}", file=sys.stderr, flush=True)
    result["speed"] = [row for setting, *rounds in settings(device, args.quick) for row in compare(setting, *rounds)]
    memory(result["speed"], device)
    network, batch = result["speed"][-1]["network"], result["speed"][-1]["batch"]
    result["checkpoint"] = checkpoint(Setting(network, batch, "float32", device))
    result["waiting"] = []
    for case in cases(device, args.quick):
        for row in shares(case, device):
            print(row, flush=True)
            result["waiting"].append(row)
    result["seconds"] = time.perf_counter() - began
    publish(args.out, f"engine-{device.type}", result, markdown(result))


if __name__ == "__main__":
    main()
