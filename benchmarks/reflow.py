"""Gain of a round of reflow and of distillation on digits, by the coupling of the first student.

    python -m benchmarks.reflow             # four couplings, with a round and without; resumes after any stop

computes missing artifacts (`flowctl run` for each) and writes benchmarks/results/reflow-digits.{json,md}.
One seed. All students are trained on 153,600 images, a round and each distillation on 89,600 more.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.matrix import artifacts_of
from benchmarks.publish import publish
from benchmarks.timing import processor

RESULTS = Path("benchmarks/results")
COUPLINGS = {"nfm": "NFM", "fm": "independent", "ot": "minibatch OT", "loom": "LOOM-CFM"}
CALLS = "[{grid: uniform, nfe: [1, 2, 16]}]"
ROUND = [f"evaluation.student={CALLS}", f"evaluation.reflow={CALLS}"]
NO_ROUND = [f"evaluation.student={CALLS}", "reflow=[]", "evaluation.reflow=[]"]


def measured(coupling: str, overrides: list[str]) -> dict[str, float]:
    """Frechet distance by "model calls", and straightness by stage; computed first where missing."""
    artifacts = artifacts_of(f"{coupling}-digits-reflow", overrides)
    metrics = {name: artifact.metrics for name, artifact in artifacts.items()}
    result: dict[str, Any] = {
        f"{score['model']} {score['nfe']:g}": score["value"] for score in metrics["evaluation"]["scores"]
    }
    result |= {
        f"straightness {name}": found["straightness"] for name, found in metrics.items() if "straightness" in found
    }
    return result | {name: metrics["evaluation"][name] for name in ("protocol", "floor")}


def markdown(result: dict[str, Any]) -> str:
    """The table."""
    lines = [
        "# A round of reflow and distillation on digits",
        "",
        f"`{result['command']}` on {result['processor']}. FD-classifier, lower is better; one seed. Two halves of "
        f"the data: {next(iter(result['rows'].values()))['round']['floor']:.3f}.",
        "",
        "| first coupling | student, 1 call | 2 | 16 | distilled to 1 | after a round, 1 call | 2 | 16 "
        "| distilled to 1 | of the student at 16 | straightness before | after |",
        "|---|" + "---:|" * 11,
    ]
    for coupling, row in result["rows"].items():
        one, other = row["no round"], row["round"]
        best = min(one["onestep 1"], other["onestep 1"])
        lines.append(
            f"| {COUPLINGS[coupling]} | "
            + " | ".join(
                f"{value:.3f}"
                for value in (
                    one["student 1"],
                    one["student 2"],
                    one["student 16"],
                    one["onestep 1"],
                    other["reflow-1 1"],
                    other["reflow-1 2"],
                    other["reflow-1 16"],
                    other["onestep 1"],
                )
            )
            + f" | {best / one['student 16']:.2f} | {other['straightness pairs-1']:.4f} | "
            f"{other['straightness reflow-1']:.4f} |"
        )
    lines += [
        "",
        "\"Of the student at 16\": the better one-step student's distance, as a multiple of the student's at 16 calls.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=list(COUPLINGS),
        metavar="nfm,fm,…",
        help="make these alone, and write nothing",
    )
    asked = parser.parse_args()
    rows = {
        coupling: {"round": measured(coupling, ROUND), "no round": measured(coupling, NO_ROUND)}
        for coupling in asked.only
    }
    result = {"command": "python -m benchmarks.reflow", "processor": processor(), "rows": rows}
    print(markdown(result))
    if set(asked.only) == set(COUPLINGS):
        publish(RESULTS, "reflow-digits", result, markdown(result))


if __name__ == "__main__":
    main()
