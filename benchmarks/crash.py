"""Kill the real stages repeatedly, resume each time, and compare the results with those of an undisturbed run.

    python -m benchmarks.crash                      # writes benchmarks/results/crash.json and docs/reliability.md
    python -m benchmarks.crash --kills 15 --seed 3 --out crash.json

Every stage of the recipes in `benchmarks.crash_recipes`, tiny, in one store. An attempt is a process that computes the
missing artifacts; it is a fork of this one, which has imported torch and done nothing with it, so that an attempt has
no start-up cost. It is ended in one of three ways:

    moment    SIGKILL from outside, a random time after a random number of calls
    call      SIGKILL just before or just after a random call of replace, rename, fsync, unlink, mkdir ...
    power     as `call`; then files not forced to the disk are torn, and renames not forced are undone

Attempts follow until all artifacts are there. Then every file must have the SHA-256 of the undisturbed run. Files that
hold times (scores, report) are compared without them.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.crash_attempts import Ended, Fault, attempt
from benchmarks.crash_power import cut_power
from benchmarks.crash_recipes import RECIPES, nodes
from benchmarks.timing import processor
from pipeline.engine.dag import Node
from storage.inspection import inspect_artifact
from storage.store import Store

RESULTS, DOCS = Path("benchmarks/results/crash.json"), Path("docs/reliability.md")
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->"
KINDS = ("moment", "call", "power")
OFTEN = 30  # times that a run is disturbed, about


def fingerprints(home: Path, work: Mapping[str, Node]) -> dict[str, Any]:
    """What must not depend on how often a run was disturbed: SHA-256 of all files, and metrics, without times."""
    actual = {}
    for name, node in work.items():
        artifact = Store(home).find(node.name, node.fingerprint)
        flaws = inspect_artifact(artifact.root).flaws
        if flaws:
            raise RuntimeError(f"{name}: {flaws}")
        files = {record.path: record.sha256 for record in artifact.files}
        timed = {"evaluation": ("scores.json",), "report": ("report.html", "report.json")}.get(node.name, ())
        metrics = json.loads(json.dumps(artifact.metrics), object_hook=_without_times)
        actual[name] = {
            "files": {path: "" if path in timed else digest for path, digest in files.items()},
            "metrics": metrics,
        }
    return actual


def _unequal(actual: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """The files and metrics that are not the same."""
    files = {**actual["files"], **expected["files"]}
    names = [path for path in sorted(files) if actual["files"].get(path) != expected["files"].get(path)]
    ours, other = actual["metrics"], expected["metrics"]
    return names + [
        f"metric {name} {ours.get(name)!r} for {other.get(name)!r}"
        for name in sorted({**ours, **other})
        if ours.get(name) != other.get(name)
    ]


def _without_times(facts: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if key != "seconds"}


@dataclass
class Campaign:
    """What happened: kills by (stage, kind), and those that left saved work to resume from."""

    kills: Counter = field(default_factory=Counter)
    saved: Counter = field(default_factory=Counter)
    lost: int = 0
    runs: int = 0
    unequal: list[str] = field(default_factory=list)


def campaign(work: Mapping[str, Node], kills: int, seed: int, folder: Path) -> Iterator[Campaign]:
    """Disturb whole runs until `kills` kills have been dealt; each run is led to its end and compared. After each of
    them, all that has happened so far."""
    draw, result = random.Random(seed), Campaign()
    whole = attempt(folder / "undisturbed", work, None)
    expected = fingerprints(folder / "undisturbed", work)
    _import_all((folder / "undisturbed.modules").read_text().split())
    while sum(result.kills.values()) < kills:
        home = folder / f"run-{result.runs}"
        for fault in _faults(kills - sum(result.kills.values()), min(0.6 * kills, OFTEN), draw, whole):
            ended = attempt(home, work, fault)
            if not ended.killed:
                break
            stage = list(work)[ended.stage]
            result.kills[stage, fault.kind] += 1
            result.saved[stage, fault.kind] += ended.saved
            if fault.kind == "power":
                result.lost += cut_power(home, draw)
        actual = fingerprints(home, work)
        result.unequal += [
            f"run {result.runs}: {name}: {', '.join(_unequal(actual[name], expected[name]))}"
            for name in work
            if actual[name] != expected[name]
        ]
        result.runs += 1
        shutil.rmtree(home)
        print(
            f"run {result.runs}: {sum(result.kills.values())} kills so far, {len(result.unequal)} artifacts differ",
            file=sys.stderr,
            flush=True,
        )
        yield result


def _import_all(modules: list[str]) -> None:
    """Import the modules of the undisturbed run, so that later attempts need not."""
    for name in modules:
        if name not in sys.modules and name != "__main__":
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def _faults(kills: int, often: float, draw: random.Random, whole: Ended) -> Iterator[Fault | None]:
    """Faults spread over a run, at most `kills`; then None, so that the run ends."""
    for _ in range(kills):
        at = 1 + int(draw.expovariate(often) * whole.calls)
        yield Fault(draw.choice(KINDS), at, draw.random() < 0.5, draw.random() * 3 * whole.seconds / whole.calls)
    yield None


def table(result: Mapping[str, Any]) -> str:
    """The campaign as Markdown."""
    kinds = " | ".join(KINDS)
    lines = [f"| stage | {kinds} | all | with work saved |", "|---|" + "---:|" * (len(KINDS) + 2)]
    for stage, row in result["stages"].items():
        counts = " | ".join(str(row["kills"].get(kind, 0)) for kind in KINDS)
        lines.append(f"| {stage} | {counts} | {sum(row['kills'].values())} | {row['saved']} |")
    total = Counter()
    for row in result["stages"].values():
        total.update(row["kills"])
    counts = " | ".join(str(total[kind]) for kind in KINDS)
    saved = sum(row["saved"] for row in result["stages"].values())
    lines.append(f"| **all** | {counts} | **{sum(total.values())}** | {saved} |")
    verdict = (
        "every file of every artifact had the SHA-256 of the undisturbed run"
        if not result["unequal"]
        else f"DIFFERENT: {', '.join(result['unequal'])}"
    )
    lines += [
        "",
        f"{result['kills']} kills over {result['runs']} runs, seed {result['seed']}: {verdict}. Power cuts "
        f"tore {result['lost']:,} files and names without an fsync. {result['seconds']:.0f} s, one "
        f"thread, {result['processor']}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--out", type=Path, default=None, help="write the result here, and leave the documents alone")
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None,
        help="where stores lie; in memory, for power cuts are simulated here and fsync takes time",
    )
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    asked = parser.parse_args()
    if asked.kills < 1:
        parser.error(f"--kills must be >= 1, got {asked.kills}")
    print(f"seed {asked.seed}", file=sys.stderr, flush=True)
    began = time.monotonic()
    work = nodes(asked.recipes)
    for node in work.values():
        node.stage.module()  # torch and all that stages need, before the first fork
    with tempfile.TemporaryDirectory(prefix="crash-", dir=asked.dir) as folder:
        for outcome in campaign(work, asked.kills, asked.seed, Path(folder)):
            result = {
                "kills": sum(outcome.kills.values()),
                "runs": outcome.runs,
                "seed": asked.seed,
                "unequal": outcome.unequal,
                "lost": outcome.lost,
                "seconds": time.monotonic() - began,
                "processor": processor(),
                "stages": {name: _of_stage(name, outcome) for name in work},
            }
            _write(result, asked.out)  # so far: a campaign of hours may be ended at any time
    print(table(result))
    return bool(result["unequal"])


def _of_stage(name: str, outcome: Campaign) -> dict[str, Any]:
    return {
        "kills": {kind: outcome.kills[name, kind] for kind in KINDS if outcome.kills[name, kind]},
        "saved": sum(outcome.saved[name, kind] for kind in KINDS),
    }


def _write(result: dict[str, Any], out: Path | None) -> None:
    (out or RESULTS).write_text(json.dumps(result, indent=2) + "\n")
    if out is None:
        before, _, after = DOCS.read_text().partition(BEGIN)
        DOCS.write_text(before + BEGIN + table(result) + END + after.partition(END)[2])


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
