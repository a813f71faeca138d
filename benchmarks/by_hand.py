"""`flowctl run nfm-digits` against the same work as one hand-written PyTorch file (`benchmarks.plain_nfm`).

    python -m benchmarks.by_hand [--rounds 3] [--threads 2] [--quick]

writes benchmarks/results/by-hand.json and .md. Both sides train networks of the same sizes on as many images, and
sample and score as often; they are whole processes that take turns, flowctl in a fresh store. CPU seconds are those of
all its processes, the Prefect server included. `--quick` is a hundredth of the work, and writes by-hand-quick.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.matrix import shortened
from benchmarks.publish import command_line, publish
from benchmarks.timing import processor
from pipeline.engine.dag import build
from pipeline.recipe.load import load
from storage.store import Store

RESULTS = Path("benchmarks/results")
RECIPE, QUICK = "nfm-digits", 0.01
REST = "start, orchestration, end"  # of the process: all that no stage takes


def by_flowctl(scale: float, environment: dict[str, str]) -> dict[str, Any]:
    """Seconds by stage, of the whole process, and of its CPU time; scores by model and NFE."""
    rules = [] if scale == 1 else scaled(scale)
    with tempfile.TemporaryDirectory() as home:
        words = [word for rule in rules for word in ("--set", rule)]
        command = [sys.executable, "-m", "flows.cli", "run", RECIPE, *words]
        _, wall, cpu = timed(command, environment | {"FLOWCTL_HOME": home})
        store = Store(Path(home))
        artifacts = {
            name: store.find(name, node.fingerprint)
            for name, node in build(load(RECIPE, rules), store.home / "cache").items()
        }
    stages = {name: artifact.provenance.wall_seconds for name, artifact in artifacts.items()}
    scores = artifacts["evaluation"].metrics["scores"]
    return _side(stages, wall, cpu) | {"scores": {f"{one['model']}, {one['nfe']:g}": one["value"] for one in scores}}


def by_hand(scale: float, environment: dict[str, str]) -> dict[str, Any]:
    """As `by_flowctl`."""
    command = [sys.executable, "-m", "benchmarks.plain_nfm", "--scale", str(scale)]
    output, wall, cpu = timed(command, environment)
    result = json.loads(output.splitlines()[-1])
    return _side(result["seconds"], wall, cpu) | {"scores": result["scores"]}


SIDES: dict[str, Callable[[float, dict[str, str]], dict[str, Any]]] = {"flowctl": by_flowctl, "by hand": by_hand}


def _side(stages: dict[str, float], wall: float, cpu: float) -> dict[str, Any]:
    return {"stages": stages | {REST: wall - sum(stages.values())}, "wall": wall, "cpu": cpu}


def timed(command: Sequence[str], environment: dict[str, str]) -> tuple[str, float, float]:
    """Output of a process, its seconds, and the CPU seconds of it and of all that it waited for."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors, env=os.environ | environment)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - began
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} must end well, got {process.returncode}: {errors.read()[-2000:]}")
        return output.read(), wall, used.ru_utime + used.ru_stime


def scaled(scale: float) -> list[str]:
    """Overrides: this share of the images, pairs and samples, as `plain_nfm --scale` has it."""
    recipe = load(RECIPE)
    return [*shortened(recipe, scale), f"evaluation.samples={max(128, round(scale * recipe.evaluation.samples))}"]


def measure(rounds: int, scale: float, threads: int) -> dict[str, Any]:
    environment = {"OMP_NUM_THREADS": str(threads)}
    sides: dict[str, list[dict[str, Any]]] = {name: [] for name in SIDES}
    for number in range(rounds):
        for name in list(SIDES) if number % 2 == 0 else list(SIDES)[::-1]:
            sides[name].append(SIDES[name](scale, environment))
            print(f"round {number + 1}, {name}: {sides[name][-1]['wall']:.1f} s", flush=True)
    return {
        "command": command_line("by_hand"),
        "processor": processor(),
        "threads": threads,
        "scale": scale,
        "load": os.getloadavg()[0],
        "sides": sides,
    }


def markdown(tree: dict[str, Any]) -> str:
    sides = tree["sides"]
    rounds = len(sides["flowctl"])
    lines = [
        f"# {RECIPE} against a hand-written script",
        "",
        f"`{tree['command']}` on {tree['processor']}, {tree['threads']} threads; medians of {rounds} round(s), the "
        f"sides taking turns. Load average at the end: {tree['load']:.1f}. "
        f"Share of the recipe's work: {tree['scale']:g}.",
        "",
        "| stage | flowctl, s | by hand, s | ratio |",
        "|---|---:|---:|---:|",
    ]
    for stage in [*dict.fromkeys(name for side in sides["flowctl"] for name in side["stages"])]:
        lines.append(_line(stage, *(_median(sides[name], "stages", stage) for name in SIDES)))
    for title, key in (("**whole process**", "wall"), ("CPU seconds of all processes", "cpu")):
        lines.append(_line(title, *(_median(sides[name], key) for name in SIDES)))
    lines += ["", "Fréchet distances, each in the features of its side's classifier, of the first round:", ""]
    lines += ["| side | " + " | ".join(sides["flowctl"][0]["scores"]) + " |"]
    lines += ["|---|" + "---:|" * len(sides["flowctl"][0]["scores"])]
    for name in SIDES:
        values = sides[name][0]["scores"]
        cells = [values.get(key, values.get(key.partition(",")[0])) for key in sides["flowctl"][0]["scores"]]
        lines.append(f"| {name} | " + " | ".join("–" if value is None else f"{value:.3f}" for value in cells) + " |")
    return "\n".join(lines) + "\n"


def _median(side: list[dict[str, Any]], *keys: str) -> float | None:
    values = [one.get(keys[0]) if len(keys) == 1 else one[keys[0]].get(keys[1]) for one in side]
    return None if None in values else statistics.median(values)


def _line(title: str, ours: float | None, theirs: float | None) -> str:
    cells = ["–" if value is None else f"{value:.2f}" for value in (ours, theirs)]
    return f"| {title} | {' | '.join(cells)} | {f'{ours / theirs:.2f}' if ours and theirs else '–'} |"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--quick", action="store_true", help="a hundredth of the work")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(words)
    tree = measure(options.rounds, QUICK if options.quick else 1.0, options.threads)
    publish(options.out, "by-hand" + "-quick" * options.quick, tree, markdown(tree))
    print(markdown(tree))


if __name__ == "__main__":
    main()
