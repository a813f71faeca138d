"""Which method makes images with one call, by the coupling that its student is trained on.

    python -m benchmarks.one_call                                     # every row at one seed; resumes after any stop
    python -m benchmarks.one_call --seeds 0,1,2 --couplings nfm,ot --methods meanflow
    python -m benchmarks.one_call --base nfm-fashion --set data.size=14   # the same on Fashion-MNIST, hours on a CPU

A row is a coupling and a method: flow matching; that student distilled to one call on its own pairs; a round of reflow
before that; MeanFlow from scratch; MeanFlow from the student, on its pairs; the same with the settings of Re-MeanFlow
(arXiv 2511.23342). Network and images seen by the student are those of the base recipe. All samples and pairs start
from N(0, I). Each row is scored at 1, 2, 4 and 8 calls, a distilled student at the call that it learned. Writes
benchmarks/results/one-call-BASE.{json,md}.
"""

from __future__ import annotations

import json
import statistics
from typing import Any, NamedTuple

from benchmarks.matrix import (
    STUDENT_ONLY,
    WITHOUT_TEACHER,
    artifacts_of,
    cell,
    crossed,
    distances,
    facts,
    frechet_scores,
    options,
    run_name,
    sweep,
    write,
)
from pipeline.outputs.results import EvaluationResult
from pipeline.recipe.load import load
from storage.required import required

CALLS = (1, 2, 4, 8)
COUPLINGS = {**WITHOUT_TEACHER, "nfm": ["bank.whiten=false"]}  # plain, as its published tables were taken
NOT_TRAINING = ("data", "reference", "evaluation")
REFLOW = "reflow-distilled"
RE_MEANFLOW_TIME = "{kind: logit-normal, mean: -0.8, std: 1.0}"
FROM_STUDENT = [
    "onestep.mode=meanflow",
    "pairs.temperature=1.0",
    f"evaluation.onestep={sweep('jump', CALLS)}",
    f"evaluation.student={sweep('euler', (1,))}",
]


class Method(NamedTuple):
    """What a method changes in the base recipe, and the model that is scored."""

    overrides: list[str]
    model: str


METHODS: dict[str, Method] = {
    "flow-matching": Method([*STUDENT_ONLY, f"evaluation.student={sweep('euler', CALLS)}"], "student"),
    "distilled": Method(["pairs.temperature=1.0", f"evaluation.student={sweep('euler', (1,))}"], "onestep"),
    REFLOW: Method(["pairs.temperature=1.0", f"evaluation.student={sweep('euler', (1,))}"], "onestep"),
    "meanflow": Method(
        [*STUDENT_ONLY, "student.objective=meanflow", f"evaluation.student={sweep('jump', CALLS)}"], "student"
    ),
    "meanflow-from-student": Method(FROM_STUDENT, "onestep"),
    "re-meanflow": Method(
        [
            *FROM_STUDENT,
            f"onestep.time={RE_MEANFLOW_TIME}",
            f"onestep.objective.r_time={RE_MEANFLOW_TIME}",
            "onestep.objective.power=0.5",
            "pairs.drop_longest=0.1",
        ],
        "onestep",
    ),
}


def rules(base: str, coupling: str, method: str, seed: int, overrides: list[str]) -> list[str]:
    """What a row changes in the base recipe."""
    name = run_name(base, "one-call", coupling, method)
    rounds = [a_round(base)] if method == REFLOW else []
    return [*COUPLINGS[coupling], *rounds, *METHODS[method].overrides, *overrides, f"seed={seed}", f"name={name}"]


def a_round(base: str) -> str:
    """A round of reflow as long as the base recipe's distillation, on as many pairs, of 31 calls; as in
    nfm-digits-reflow, with the teacher's share of pairs left out."""
    recipe = load(base)
    pairs = {"count": required(recipe.pairs, "pairs").count, "nfe": 31}
    training = required(recipe.onestep, "a one-step student").training.model_dump(mode="json", exclude_unset=True)
    return f"reflow={json.dumps([{'pairs': pairs, 'training': training}])}"


def measured(base: str, coupling: str, method: str, seed: int, overrides: list[str]) -> dict[str, Any]:
    """The scores and costs of one row; missing stages are run first."""
    artifacts = artifacts_of(base, rules(base, coupling, method, seed, overrides))
    evaluation = EvaluationResult.model_validate(artifacts["evaluation"].metrics)
    scores = [score for score in frechet_scores(evaluation) if score.model == METHODS[method].model]
    training = {name: artifact for name, artifact in artifacts.items() if name not in NOT_TRAINING}
    return {
        "protocol": evaluation.protocol,
        "metric": scores[0].metric,
        **distances(scores),
        "yardstick": artifacts["reference"].metrics["held_out"],
        "images_seen": sum(artifact.metrics.get("images_seen", 0) for artifact in training.values()),
        "seconds": {name: artifact.provenance.wall_seconds for name, artifact in training.items()},
        "resumed": [name for name, artifact in training.items() if artifact.provenance.resumed],
    }


def markdown(tree: dict[str, Any]) -> str:
    """The tables: distances to the training images, then to the held-out ones, each with the costs."""
    rows, seeds = tree["rows"], len(tree["seeds"])
    lines = [
        f"# One call on {tree['base']}",
        "",
        f"`{tree['command']}` on {tree['processor']}. {rows[0]['seeds'][0]['metric']} by NFE, lower is better; "
        f"mean over {seeds} seed(s){', ± standard deviation' * (seeds > 1)}. Training and held-out images are "
        f"{rows[0]['seeds'][0]['yardstick']:.3f} apart. Images seen and seconds are those of all trained networks, "
        "pairs, banks and potentials that a row needs.",
    ]
    for title, key in (("To the training images", "train"), ("To the held-out images", "held_out")):
        lines += [
            "",
            f"## {title}",
            "",
            "| coupling | method | " + " | ".join(map(str, CALLS)) + " | images seen | seconds in all |",
            "|---|---|" + "---:|" * (len(CALLS) + 2),
        ]
        for row in rows:
            cells = [cell([seed[key].get(str(nfe)) for seed in row["seeds"]]) for nfe in CALLS]
            total = statistics.fmean(sum(seed["seconds"].values()) for seed in row["seeds"])
            again = "≥ " if any(seed["resumed"] for seed in row["seeds"]) else ""  # of the last attempt only
            lines.append(
                f"| {row['coupling']} | {row['method']} | "
                + " | ".join(cells)
                + f" | {row['seeds'][0]['images_seen']:,} | {again}{total:.0f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--couplings", type=lambda text: text.split(","), default=list(COUPLINGS), metavar="NAME,…")
    parser.add_argument("--methods", type=lambda text: text.split(","), default=list(METHODS), metavar="NAME,…")
    words = parser.parse_args()
    tree = {**facts("one_call", words), "rows": crossed(words, "method", words.methods, measured)}
    write("one-call", tree, markdown(tree))


if __name__ == "__main__":
    main()
