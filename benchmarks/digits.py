"""What couplings are worth on digits, and what the teacher's noise eta does.

    python -m benchmarks.digits --threads 1                 # four couplings at three seeds: 12 students
    python -m benchmarks.digits semidiscrete --threads 1    # a fifth, three more
    python -m benchmarks.digits eta                         # NFM with teachers of different noise, one seed

runs what the store does not have yet: the same command resumes after any stop, and several processes may share the work
(`--seeds 0`, `--only nfm-digits,ot-digits`). A complete comparison is written to benchmarks/results/NAME.json and .md;
that of couplings also to docs/compare-digits.png, as a whole to docs/findings.md, and its table of scores to README.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.publish import command_line, publish
from benchmarks.timing import processor
from flows.views.comparison import collect, requests
from pipeline.reporting.compare import Comparison, compare
from storage.errors import FlowctlError
from storage.store import Store

RESULTS, PLOT = Path("benchmarks/results"), Path("docs/compare-digits.png")
README, FINDINGS = Path("README.md"), Path("docs/findings.md")
BEGIN, END = "<!-- compare-digits:begin -->", "<!-- compare-digits:end -->"


@dataclass(frozen=True)
class Contest:
    """Recipes that are compared, and at which seeds it counts."""

    title: str
    name: str  # of the files in results/
    recipes: tuple[str, ...]
    seeds: tuple[int, ...]
    shown: bool  # in README.md and docs/findings.md


CONTESTS = {
    "couplings": Contest(
        "Couplings on digits", "digits", ("nfm-digits", "fm-digits", "ot-digits", "loom-digits"), (0, 1, 2), True
    ),
    "semidiscrete": Contest("Semidiscrete OT on digits", "digits-semidiscrete", ("sd-digits",), (0, 1, 2), False),
    "eta": Contest(
        "The teacher's noise on digits",
        "digits-eta",
        ("nfm-digits-eta005", "nfm-digits-eta01", "nfm-digits-eta02", "nfm-digits-eta04"),
        (0,),
        False,
    ),
}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contest", nargs="?", choices=CONTESTS, default="couplings")
    parser.add_argument(
        "--seeds",
        type=lambda text: [int(part) for part in text.split(",")],
        metavar="0,1,2",
        help="the contest's own unless given",
    )
    parser.add_argument("--only", type=lambda text: text.split(","), metavar="RECIPE,...", help="some of its recipes")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of each run; all unless given")
    asked = parser.parse_args(words)
    contest = CONTESTS[asked.contest]
    recipes, seeds = asked.only or contest.recipes, asked.seeds or contest.seeds
    threads = [] if asked.threads is None else [f"compute.threads={asked.threads}"]
    runs = collect(
        requests(recipes, seeds, threads),
        Store(),
        run_missing=True,
        tell=lambda text: print(text, file=sys.stderr, flush=True),
    )
    comparison = compare(runs)
    print(comparison.text())
    if set(contest.recipes) <= set(recipes) and set(contest.seeds) <= set(seeds):
        write(contest, comparison, command_line("digits", words))
    else:
        print("\nA part of the comparison: nothing written.")


def write(contest: Contest, comparison: Comparison, command: str) -> None:
    """Everything that is kept in the repository."""
    tree = {"command": command, "processor": processor(), **comparison.to_json()}
    publish(RESULTS, contest.name, tree, page(contest, comparison, command, tree["processor"]))
    if contest.shown:
        comparison.plot(PLOT)
        README.write_text(between_marks(README.read_text(), scores(comparison)))
        FINDINGS.write_text(between_marks(FINDINGS.read_text(), comparison.markdown()))


def page(contest: Contest, comparison: Comparison, command: str, processor: str) -> str:
    """The results in full, for people."""
    machines = ", ".join(dict.fromkeys(run.machine for run in comparison.runs))
    return (
        "\n".join(
            [
                f"# {contest.title}",
                "",
                f"`{command}` on {processor}: {machines}.",
                "",
                comparison.markdown(),
                "",
                "## Seconds by stage",
                "",
                *seconds(comparison),
                *teachers(comparison),
            ]
        )
        + "\n"
    )


def seconds(comparison: Comparison) -> list[str]:
    """A table of the mean seconds that each stage took, over the seeds."""
    stages = list(dict.fromkeys(stage for run in comparison.runs for stage in run.seconds))
    lines = ["| recipe | " + " | ".join(stages) + " |", "|---|" + "---:|" * len(stages)]
    for recipe in dict.fromkeys(run.recipe for run in comparison.runs):
        runs = [run for run in comparison.runs if run.recipe == recipe]
        taken = [[run.seconds[stage] for run in runs if stage in run.seconds] for stage in stages]
        lines.append(
            f"| {recipe} | " + " | ".join(f"{statistics.fmean(some):.0f}" if some else "–" for some in taken) + " |"
        )
    return lines


def teachers(comparison: Comparison) -> list[str]:
    """A table of the teachers' mean bits per dimension, over the seeds; nothing without teachers."""
    found = {
        recipe: [run.teacher_bits for run in comparison.runs if run.recipe == recipe and run.teacher_bits]
        for recipe in dict.fromkeys(run.recipe for run in comparison.runs)
    }
    lines = [
        f"| {recipe} | {statistics.fmean(bits.train for bits in some):.2f} "
        f"| {statistics.fmean(bits.held_out for bits in some):.2f} |"
        for recipe, some in found.items()
        if some
    ]
    return (
        [
            "",
            "## Teachers",
            "",
            "| recipe | bits per dimension, training images | held-out images |",
            "|---|---:|---:|",
            *lines,
        ]
        if lines
        else []
    )


def scores(comparison: Comparison) -> str:
    """The first table of the comparison alone, in Markdown."""
    return comparison.markdown().partition("\n\n")[0]


def between_marks(page: str, text: str) -> str:
    """A page with `text` between its marks. Raises ValueError where the marks are not there once each."""
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise ValueError(f"the page needs the lines {BEGIN} and {END}, once each, in this order")
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    try:
        main()
    except FlowctlError as error:
        sys.exit(f"error: {error}")
