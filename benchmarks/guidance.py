"""Couplings within classes or across them, under classifier-free guidance.

    python -m benchmarks.guidance                      # digits, every row at one seed; resumes after any stop
    python -m benchmarks.guidance --seeds 0,1,2 --couplings ot,ot-across --guidances 1,1.5

Transport across classes pairs some images with noise that another class would have been nearer to, which guidance may
make up for. Network and images seen are those of the base recipe; a guided step calls the network twice, and both calls
are counted. Writes benchmarks/results/guidance-BASE.{json,md}.
"""

from __future__ import annotations

from typing import Any

from benchmarks.matrix import (
    NO_TEACHER,
    STUDENT_ONLY,
    artifacts_of,
    both,
    crossed,
    distances,
    facts,
    frechet_scores,
    nearest,
    options,
    run_name,
    write,
)
from pipeline.outputs.results import EvaluationResult, Score
from pipeline.recipe.load import load

CALLS = (2, 4, 8, 16)
COUPLINGS: dict[str, list[str]] = {
    "nfm": [],
    "independent": ["student.coupling=independent", *NO_TEACHER],
    "ot": ["student.coupling=ot", *NO_TEACHER],
    "ot-across": ["student.coupling={kind: ot, within_classes: false}", *NO_TEACHER],
    "loom": ["student.coupling=loom", *NO_TEACHER],
    "loom-across": ["student.coupling={kind: loom, within_classes: false}", *NO_TEACHER],
    "semidiscrete": ["student.coupling=semidiscrete", "potentials={}", *NO_TEACHER],
    "semidiscrete-across": ["student.coupling=semidiscrete", "potentials={within_classes: false}", *NO_TEACHER],
}


def rules(base: str, coupling: str, guidances: list[str], seed: int, overrides: list[str]) -> list[str]:
    """What a coupling changes in the base recipe, and the sweep over guidance at the temperature of its evaluation."""
    temperature = load(base).evaluation.student[0].temperature
    sampler = f"solver: euler, grid: uniform, nfe: {list(CALLS)}, temperature: {temperature}"
    sweep = f"evaluation.student=[{{{sampler}, guidance: [{', '.join(guidances)}]}}]"
    named = [f"seed={seed}", f"name={run_name(base, 'guidance', coupling)}"]
    return [*COUPLINGS[coupling], *STUDENT_ONLY, "evaluation.teacher=false", sweep, *overrides, *named]


def measured(base: str, coupling: str, guidances: str, seed: int, overrides: list[str]) -> dict[str, Any]:
    """Both distances of one student by guidance and calls, and what its noise tells of the class; missing stages are
    run first."""
    artifacts = artifacts_of(base, rules(base, coupling, guidances.split(","), seed, overrides))
    result = EvaluationResult.model_validate(artifacts["evaluation"].metrics)
    scores = frechet_scores(result)
    metric = scores[0].metric
    by_guidance: dict[str, list[Score]] = {}
    for score in scores:
        by_guidance.setdefault(f"{score.protocol['guidance']:g}", []).append(score)
    return {
        "protocol": result.protocol,
        "metric": metric,
        "yardstick": result.held_out[metric],
        "class_leak": artifacts["student"].metrics["class_leak"],
        "guidances": {name: distances(found) for name, found in by_guidance.items()},
    }


def markdown(tree: dict[str, Any]) -> str:
    """A row for each coupling and guidance; then, for each coupling, the best guidance at each number of calls."""
    seeds = tree["rows"][0]["seeds"]
    calls = [f"{nfe:g}" for nfe in CALLS]
    header = [f"| {' | '.join(calls)} |", f"{'---:|' * len(calls)}"]
    lines = [
        f"# Guidance of couplings within and across classes on {tree['base']}",
        "",
        f"`{tree['command']}` on {tree['processor']}. {seeds[0]['metric']} to the training / held-out images by "
        f"NFE (two for a guided step), lower is better; mean over {len(seeds)} seed(s)"
        f"{', ± standard deviation' * (len(seeds) > 1)}. Training and held-out images are "
        f"{seeds[0]['yardstick']:.3f} apart.",
        "",
        f"| coupling | guidance {header[0]}",
        f"|---|---|{header[1]}",
    ]
    best = []
    for row in tree["rows"]:
        found = {name: [seed["guidances"][name] for seed in row["seeds"]] for name in row["seeds"][0]["guidances"]}
        for name, scores in found.items():
            lines.append(f"| {row['coupling']} | {name} | " + " | ".join(both(scores, nfe) for nfe in calls) + " |")
        chosen = {nfe: nearest(found, nfe) for nfe in calls}
        cells = [f"{both(found[name], nfe)} (guidance {name})" for nfe, name in chosen.items()]
        best.append(f"| {row['coupling']} | {' | '.join(cells)} |")
    lines += ["", "Each at the guidance that is the nearest to the training images:", ""]
    return "\n".join([*lines, f"| coupling {header[0]}", f"|---|{header[1]}", *best]) + "\n"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--couplings", type=lambda text: text.split(","), default=list(COUPLINGS), metavar="NAME,…")
    parser.add_argument("--guidances", default="1,1.25,1.5,2", metavar="G,…")
    words = parser.parse_args()
    rows = crossed(words, "guidances", [words.guidances], measured)
    tree = {**facts("guidance", words), "rows": rows}
    write("guidance", tree, markdown(tree))


if __name__ == "__main__":
    main()
