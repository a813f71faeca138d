"""How long the stages of past runs took against what their plans expected.

    python -m benchmarks.forecast                   # the runs of this store
    python -m benchmarks.forecast --longer 60

Each run stores the times of its plan before it starts, and each artifact the time of its stage. A stage counts if it
ran from its start in the run that planned it, and took longer than `--longer` seconds. Writes results/forecast.md.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmarks.publish import command_line
from benchmarks.timing import processor
from flows.session.runs import records
from storage.artifact import Artifact
from storage.store import Store

RESULT = Path(__file__).with_name("results") / "forecast.md"
MEASURED = 0.8  # share of a stage's expected time that comes from rates, from which on the stage counts as measured


@dataclass(frozen=True)
class Stage:
    """One stage of one run: seconds expected and taken, and the share of the expected ones that rates gave."""

    run: str
    name: str
    expected: float
    measured: float
    taken: float

    @property
    def ratio(self) -> float:
        return self.expected / self.taken


def stages(store: Store, longer: float) -> Iterator[Stage]:
    """The stages of all runs of a store, in the order in which the runs began."""
    artifacts = {artifact.fingerprint: artifact for artifact in store.artifacts() if isinstance(artifact, Artifact)}
    for run in records(store.home):
        for step in run["plan"]:
            artifact = artifacts.get(step["fingerprint"])
            if step["action"] != "run" or not step.get("seconds") or artifact is None:
                continue
            made = artifact.provenance
            begun = datetime.fromisoformat(made.created).timestamp() - made.wall_seconds + 1  # stored in whole seconds
            if made.resumed == 0 and made.wall_seconds > longer and run["began"] <= begun <= (run["ended"] or begun):
                yield Stage(run["name"], step["stage"], step["seconds"], step["measured"], made.wall_seconds)


def markdown(rows: list[Stage], command: str) -> str:
    lines = [
        "# Expected times against times taken",
        "",
        f"`{command}` on {processor()}. Seconds; what else the machine did is not known.",
        "",
        "| times | stages | within 20 % | within a factor of 2 | median of expected / taken |",
        "|---|---:|---:|---:|---:|",
    ]
    for title, chosen in (
        (f"at least {MEASURED:.0%} of it by rates", [row for row in rows if row.measured >= MEASURED]),
        ("by counted work alone", [row for row in rows if row.measured == 0]),
    ):
        ratios = [row.ratio for row in chosen]
        close, half = (sum(1 / factor <= ratio <= factor for ratio in ratios) for factor in (1.2, 2))
        middle = f"{statistics.median(ratios):.2f}" if ratios else "–"
        lines.append(f"| {title} | {len(ratios)} | {close} | {half} | {middle} |")
    lines += ["", "| run | stage | by rates | expected | taken | expected / taken |", "|---|---|---:|---:|---:|---:|"]
    for row in rows:
        seconds = f"{row.expected:,.0f} | {row.taken:,.0f} | {row.ratio:.2f}"
        lines.append(f"| {row.run} | {row.name} | {row.measured:.0%} | {seconds} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--longer", type=float, default=20, metavar="SECONDS")
    words = parser.parse_args()
    command = command_line("forecast")
    text = markdown(list(stages(Store(), words.longer)), command)
    RESULT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
