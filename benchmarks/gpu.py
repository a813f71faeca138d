"""Everything about a GPU in one call of nine minutes: correctness, speed, memory, waiting times, and Fashion-MNIST.

    python -m benchmarks.gpu [--minutes 9] [--device cuda] [--quick] [--only unet,memory] [--data FOLDER]

writes benchmarks/results/gpu-<device>.json and .md, after every part. It needs nothing but the project; torchcfm is a
peer where it is installed. Parts run in the order of their value, each in a separate process and within its share of
the time. A part that fails or takes too long is recorded with its error, and the next one starts.

`--device cpu --quick` proves every part without a GPU, on small networks: its figures say nothing about speed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu_report import markdown
from benchmarks.publish import command_line, publish

RESULTS = Path("benchmarks/results")
GRACE = 20.0  # seconds that a part may exceed its share: the start of its process, and the case that it is at


@dataclass(frozen=True)
class Part:
    """A module with a function `measure(context)` that yields rows of figures; the module's docstring is the title.

    `share` is the part's share of the time that is left, relative to the shares of this part and the next ones.
    """

    name: str
    share: float
    folder: str = "benchmarks.gpu_parts"

    @property
    def module(self) -> str:
        return f"{self.folder}.{self.name}"


PARTS = (
    Part("machine", 2),
    Part("networks", 6),
    Part("repeat", 10),
    Part("tests", 8),
    Part("unet", 30),
    Part("teacher", 14),
    Part("memory", 6),
    Part("waiting", 14),
    Part("features", 4),
    Part("fashion", 30),
)


# --- the parent: one process for each part


def measure(parts: Sequence[Part], options: argparse.Namespace) -> dict[str, Any]:
    """Run the parts one after another; the results are written after each of them."""
    began = time.monotonic()
    result: dict[str, Any] = {
        "command": command_line("gpu"),
        "device": options.device,
        "quick": options.quick,
        "minutes": options.minutes,
        "parts": [],
    }
    for number, part in enumerate(parts):
        left = 60 * options.minutes - (time.monotonic() - began)
        share = left * part.share / sum(later.share for later in parts[number:])
        limit = min(left, share + GRACE)  # before which the part has ended by itself
        print(f"== {part.name}: {share:.0f} of {left:.0f} seconds", flush=True)
        result["parts"].append(run(part, max(0.0, limit - GRACE), limit, options))
        result["seconds"] = time.monotonic() - began
        _write(result, options.out)
    return result


def run(part: Part, seconds: float, limit: float, options: argparse.Namespace) -> dict[str, Any]:
    """The rows of one part, measured in a separate process that is killed after `limit` seconds."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        into = Path(folder) / "part.json"
        command = [sys.executable, "-m", "benchmarks.gpu", "--part", part.module, "--seconds", f"{seconds:.1f}"]
        command += ["--device", options.device, "--into", str(into), *(["--quick"] if options.quick else [])]
        command += ["--data", str(options.data)] if options.data else []
        child = subprocess.Popen(command, start_new_session=True)
        try:
            child.wait(max(0.0, limit))
            end = f"the process ended with exit code {child.returncode}" if child.returncode else None
        except subprocess.TimeoutExpired:
            end = f"stopped after {limit:.0f} seconds"
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)  # its own processes too
                child.wait()
        outcome = json.loads(into.read_text()) if into.exists() else {"rows": []}
    if end and "error" not in outcome:
        outcome["error"] = end
    if "error" in outcome:
        print(f"== {part.name} failed: {outcome['error'].strip().splitlines()[-1]}", flush=True)
    return {"name": part.name, "seconds": time.monotonic() - began} | outcome


def _write(result: dict[str, Any], folder: Path) -> None:
    name = f"gpu-{result['device'].partition(':')[0]}" + "-quick" * result["quick"]
    publish(folder, name, result, markdown(result))


# --- the child: one part


def measure_part(options: argparse.Namespace) -> None:
    """Write the rows of a part as they come, and the error that ends it, if one does."""
    outcome: dict[str, Any] = {"rows": []}
    try:
        from benchmarks.gpu_parts import Context

        module = importlib.import_module(options.part)
        outcome["title"] = module.__doc__.strip().splitlines()[0].rstrip(".")
        for row in module.measure(Context.of(options.device, options.quick, options.seconds, options.data)):
            outcome["rows"].append(row)
            print(row, flush=True)
            _replace(options.into, outcome)
    except Exception:
        outcome["error"] = traceback.format_exc()
    _replace(options.into, outcome)


def _replace(path: Path, outcome: dict[str, Any]) -> None:
    """Write a file that a kill at any moment leaves whole."""
    aside = path.with_suffix(".partial")
    aside.write_text(json.dumps(outcome))
    aside.replace(path)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all parts together")
    parser.add_argument("--quick", action="store_true", help="small networks and few rounds: a proof, no measurement")
    parser.add_argument("--only", type=lambda text: text.split(","), metavar="PART,…", help="these parts alone")
    parser.add_argument("--data", type=Path, help="folder of Fashion-MNIST's four files")
    parser.add_argument("--out", type=Path, default=RESULTS)
    for hidden, kind in (("--part", str), ("--seconds", float), ("--into", Path)):
        parser.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.part:
        measure_part(options)
        return 0
    names = [part.name for part in PARTS]
    if unknown := set(options.only or ()) - set(names):
        parser.error(f"--only must name parts of {', '.join(names)}; got {', '.join(sorted(unknown))}")
    result = measure([part for part in PARTS if options.only is None or part.name in options.only], options)
    print(markdown(result))
    return int(any("error" in part for part in result["parts"]))


if __name__ == "__main__":
    sys.exit(main())
