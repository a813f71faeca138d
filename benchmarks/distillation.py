"""What helps distillation to one call: its pairs, its loss, its length, and the student that it starts from.

    python -m benchmarks.distillation                                   # every knob at one seed; resumes after any stop
    python -m benchmarks.distillation --couplings nfm --only baseline,pseudo-huber --seeds 0,1,2

Each knob changes the pairs or the one-step training of the base recipe, none the student that is distilled; `student-…`
starts from one that saw more images. Samples and pairs start from N(0, I), but for `pairs-from-1.1`. The figure to
lower is the distance at one call over that of the student at 16. Writes benchmarks/results/distillation-BASE.{json,md}.
"""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.matrix import artifacts_of, cell, crossed, facts, frechet_scores, options, run_name, sweep, write
from benchmarks.one_call import COUPLINGS, NOT_TRAINING
from pipeline.outputs.results import EvaluationResult
from pipeline.recipe.load import load
from storage.required import required

STUDENT_CALLS = 16  # of the student that is distilled


def knobs(base: str) -> dict[str, list[str]]:
    """What each changes in the base recipe."""
    recipe = load(base)
    pairs, onestep = required(recipe.pairs, "pairs"), required(recipe.onestep, "onestep")
    count, images, seen = pairs.count, onestep.training.images, recipe.student.training.images
    return {
        "baseline": [],
        "pairs-of-31-calls": ["pairs.nfe=31"],
        "pairs-twice": [f"pairs.count={2 * count}"],
        "pairs-four-times": [f"pairs.count={4 * count}"],
        "images-twice": [f"onestep.training.images={2 * images}"],
        "pseudo-huber": ["onestep.loss={kind: pseudo-huber}"],
        "pairs-from-1.1": ["pairs.temperature=1.1"],
        "average-longer": ["onestep.training.ema=30000"],
        "student-twice": [f"student.training.images={2 * seen}"],
        "pairs-four-times-images-twice": [f"pairs.count={4 * count}", f"onestep.training.images={2 * images}"],
        "these-and-31-calls": [f"pairs.count={4 * count}", f"onestep.training.images={2 * images}", "pairs.nfe=31"],
    }


def rules(base: str, coupling: str, knob: str, seed: int, overrides: list[str]) -> list[str]:
    """What a row changes in the base recipe."""
    scored = [f"evaluation.student={sweep('euler', (1, STUDENT_CALLS))}", f"evaluation.onestep={sweep('euler', (1,))}"]
    named = [f"seed={seed}", f"name={run_name(base, 'distillation', coupling, knob)}"]
    return [*COUPLINGS[coupling], "pairs.temperature=1.0", *scored, *overrides, *knobs(base)[knob], *named]


def measured(base: str, coupling: str, knob: str, seed: int, overrides: list[str]) -> dict[str, Any]:
    """The scores and costs of one row; missing stages are run first."""
    artifacts = artifacts_of(base, rules(base, coupling, knob, seed, overrides))
    evaluation = EvaluationResult.model_validate(artifacts["evaluation"].metrics)
    scores = {f"{score.model} at {score.nfe:g}": score for score in frechet_scores(evaluation)}
    training = {name: artifact for name, artifact in artifacts.items() if name not in NOT_TRAINING}
    onestep, student = scores["onestep at 1"], scores[f"student at {STUDENT_CALLS}"]
    return {
        "protocol": evaluation.protocol,
        "metric": onestep.metric,
        "train": {name: score.value for name, score in scores.items()},
        "held_out": {name: score.value_held_out for name, score in scores.items()},
        "ratio": onestep.value / student.value,
        "yardstick": artifacts["reference"].metrics["held_out"],
        "seconds": {name: artifact.provenance.wall_seconds for name, artifact in training.items()},
    }


def markdown(tree: dict[str, Any]) -> str:
    """The table: a line for each coupling and knob."""
    first = tree["rows"][0]["seeds"][0]
    several = len(tree["seeds"]) > 1
    lines = [
        f"# What helps distillation on {tree['base']}",
        "",
        f"`{tree['command']}` on {tree['processor']}. {first['metric']} to the training / held-out images, which are "
        f"{first['yardstick']:.3f} apart; mean over {len(tree['seeds'])} seed(s){', ± standard deviation' * several}. "
        f"Ratio: one-step student to the student at {STUDENT_CALLS} calls, to the training images. Seconds: of pairs "
        "and one-step training.",
        "",
        f"| coupling | knob | one-step, training | held-out | student at {STUDENT_CALLS}, training | ratio | seconds |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in tree["rows"]:
        seeds = row["seeds"]
        seconds = statistics.fmean(seed["seconds"]["pairs"] + seed["seconds"]["onestep"] for seed in seeds)
        lines.append(
            f"| {row['coupling']} | {row['knob']} | {cell([seed['train']['onestep at 1'] for seed in seeds])} "
            f"| {cell([seed['held_out']['onestep at 1'] for seed in seeds])} "
            f"| {cell([seed['train'][f'student at {STUDENT_CALLS}'] for seed in seeds])} "
            f"| {cell([seed['ratio'] for seed in seeds])} | {seconds:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--couplings", type=lambda text: text.split(","), default=["nfm", "ot"], metavar="NAME,…")
    parser.add_argument("--only", type=lambda text: text.split(","), default=None, metavar="KNOB,…")
    words = parser.parse_args()
    rows = crossed(words, "knob", words.only or knobs(words.base), measured)
    tree = {**facts("distillation", words), "rows": rows}
    write("distillation", tree, markdown(tree))


if __name__ == "__main__":
    main()
