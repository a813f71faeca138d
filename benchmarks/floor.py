"""What keeps NFM's distance up with many network calls, and what brings it down.

    python -m benchmarks.floor                      # digits: every knob at one seed; resumes after any stop
    python -m benchmarks.floor --seeds 0,1,2 --only baseline,soften-0.4
    python -m benchmarks.floor --set data.size=14 --base nfm-fashion      # the same on Fashion-MNIST, hours on a CPU

The student is trained on z of its images and sampled from N(0, I), at temperature 1. Where the two laws differ, no
number of calls helps. Each knob changes the teacher, or how much of its coupling the student is trained on; student,
images seen and evaluation stay the same. Writes benchmarks/results/floor-BASE.{json,md} once every knob is there at its
seeds.
"""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.matrix import (
    NO_TEACHER,
    STUDENT_ONLY,
    artifacts_of,
    cell,
    distances,
    facts,
    frechet_scores,
    options,
    run_name,
    sweep,
    write,
)
from pipeline.outputs.results import EvaluationResult, TeacherResult
from pipeline.recipe.load import load
from storage.required import required

KNOBS: dict[str, list[str]] = {
    "baseline": [],
    "independent": ["student.coupling=independent", *NO_TEACHER],
    "minibatch-ot": ["student.coupling=ot", *NO_TEACHER],
    "mixed-0.1": ["student.coupling={kind: nfm, independent: 0.1}"],
    "mixed-0.2": ["student.coupling={kind: nfm, independent: 0.2}"],
    "mixed-0.4": ["student.coupling={kind: nfm, independent: 0.4}"],
    "soften-0.2": ["student.coupling={kind: nfm, soften: 0.2}"],
    "soften-0.4": ["student.coupling={kind: nfm, soften: 0.4}"],
    "soften-0.6": ["student.coupling={kind: nfm, soften: 0.6}"],
    "whitened": ["bank.whiten=true"],
    "online": ["student.coupling={kind: nfm, online: true}"],
    "draws-32": ["bank.draws_per_image=32"],
    "loom-from-bank": ["student.coupling={kind: loom, start: bank}"],
    "teacher-dropout-0.1": ["teacher.dropout=0.1"],
    "teacher-dropout-0.2": ["teacher.dropout=0.2"],
    "teacher-eta-0.1": ["teacher.noise_std=0.1"],
    "teacher-width-96": ["teacher.width=96"],
    "teacher-even": ["teacher.blocks=8", "teacher.layers=1"],  # 8 layers in all, as in the recipe
    "teacher-deep-first": ["teacher.blocks=4", "teacher.layers=[5, 1, 1, 1]"],
    "teacher-noise-levels": ["teacher.noise_levels=[0.05, 0.4]"],
    "teacher-best": ["teacher.quality={points: 20, use: best}"],
}


def knobs(base: str) -> dict[str, list[str]]:
    """What each knob changes; the last has the teacher see twice the images."""
    images = required(load(base).teacher, "a teacher").training.images
    return {**KNOBS, "teacher-longer": [f"teacher.training.images={2 * images}"]}


def rules(base: str, knob: str, seed: int, overrides: list[str]) -> list[str]:
    """What a knob changes in the base recipe, from plain noise and samples of N(0, I) on."""
    return [
        "bank.whiten=false",
        f"evaluation.student={sweep('euler', (1, 2, 4, 8, 16, 31))}",
        *STUDENT_ONLY,
        *overrides,
        *knobs(base)[knob],
        f"seed={seed}",
        f"name={run_name(base, knob)}",
    ]


def measured(base: str, knob: str, seed: int, overrides: list[str]) -> dict[str, Any]:
    """The scores and costs of one run; computed first where the store has none."""
    artifacts = artifacts_of(base, rules(base, knob, seed, overrides))
    evaluation = EvaluationResult.model_validate(artifacts["evaluation"].metrics)
    row: dict[str, Any] = {
        "protocol": evaluation.protocol,
        "seconds": {name: artifact.provenance.wall_seconds for name, artifact in artifacts.items()},
        **distances(score for score in frechet_scores(evaluation) if score.model == "student"),
        "yardstick": artifacts["reference"].metrics["held_out"],
    }
    if "teacher" in artifacts:
        teacher = TeacherResult.model_validate(artifacts["teacher"].metrics)
        row["bits"] = {"train": teacher.bits_per_dim_train, "held_out": teacher.bits_per_dim}
    return row


def markdown(tree: dict[str, Any]) -> str:
    """The tables: to the training images, then to the held-out ones."""
    knobs = tree["knobs"]
    calls = list(next(iter(knobs.values()))[0]["train"])
    yardstick = next(iter(knobs.values()))[0]["yardstick"]
    lines = [
        f"# The floor of NFM on {tree['base']}",
        "",
        f"`{tree['command']}` on {tree['processor']}. FD-classifier by NFE, lower is better; mean over "
        f"{len(tree['seeds'])} seed(s){', ± standard deviation' * (len(tree['seeds']) > 1)}. Training and held-out "
        f"images are {yardstick:.3f} apart.",
    ]
    for title, key in (("To the training images", "train"), ("To the held-out images", "held_out")):
        lines += [
            "",
            f"## {title}",
            "",
            "| knob | " + " | ".join(calls) + " | sum |",
            "|---|" + "---:|" * (len(calls) + 1),
        ]
        for knob, rows in knobs.items():
            cells = [cell([row[key][nfe] for row in rows]) for nfe in calls]
            lines.append(f"| {knob} | " + " | ".join(cells) + f" | {cell([sum(row[key].values()) for row in rows])} |")
    lines += ["", "## Cost", "", "| knob | teacher's bits per dimension, training | held-out | seconds in all |"]
    lines.append("|---|---:|---:|---:|")
    for knob, rows in knobs.items():
        bits = rows[0].get("bits")
        total = statistics.fmean(sum(row["seconds"].values()) for row in rows)
        lines.append(
            f"| {knob} | "
            + (f"{bits['train']:.2f} | {bits['held_out']:.2f}" if bits else "– | –")
            + f" | {total:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--only", type=lambda text: text.split(","), metavar="KNOB,…")
    words = parser.parse_args()
    rows = {
        knob: [measured(words.base, knob, seed, words.overrides) for seed in words.seeds]
        for knob in words.only or knobs(words.base)
    }
    tree = {**facts("floor", words), "knobs": rows}
    write("floor", tree, markdown(tree))


if __name__ == "__main__":
    main()
