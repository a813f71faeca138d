"""How hot the noise should be that a student starts from, by its number of calls.

    python -m benchmarks.temperature --base nfm-digits --seeds 0,1,2
    python -m benchmarks.temperature --base nfm-digits-meanflow --temperatures 1,1.1,1.15

The first sampler of the recipe's evaluation starts from z ~ N(0, T^2 I) at each temperature T. The best T is chosen by
the distance to the training images, and read off at the held-out ones. Stages that the store does not have are run
first; the same command resumes after any stop. Writes benchmarks/results/temperature-BASE.{json,md}.
"""

from __future__ import annotations

import json
from typing import Any

from benchmarks.matrix import (
    STUDENT_ONLY,
    artifacts_of,
    both,
    distances,
    facts,
    frechet_scores,
    nearest,
    options,
    run_name,
    write,
)
from pipeline.outputs.results import EvaluationResult
from pipeline.recipe.load import load


def measured(base: str, temperatures: list[str], seed: int, overrides: list[str]) -> dict[str, Any]:
    """Both distances by temperature and calls."""
    how = load(base, overrides).evaluation.student[0].model_dump(mode="json", exclude_unset=True)
    sweep = json.dumps([{**how, "temperature": [float(one) for one in temperatures]}])
    rules = [*STUDENT_ONLY, "evaluation.teacher=false", f"evaluation.student={sweep}", *overrides, f"seed={seed}"]
    artifacts = artifacts_of(base, [*rules, f"name={run_name(base, 'temperature')}"])
    result = EvaluationResult.model_validate(artifacts["evaluation"].metrics)
    scores = frechet_scores(result)
    metric = scores[0].metric
    rows = {
        temperature: distances(score for score in scores if score.temperature == float(temperature))
        for temperature in temperatures
    }
    return {"protocol": result.protocol, "metric": metric, "yardstick": result.held_out[metric], "temperatures": rows}


def markdown(tree: dict[str, Any]) -> str:
    """A row for each temperature, then the best at each number of calls."""
    seeds = tree["measured"]
    found = {name: [seed["temperatures"][name] for seed in seeds] for name in seeds[0]["temperatures"]}
    calls = list(next(iter(found.values()))[0]["train"])
    lines = [
        f"# The temperature of {tree['base']}",
        "",
        f"`{tree['command']}` on {tree['processor']}. {seeds[0]['metric']} to the training / held-out images by NFE, "
        f"lower is better; mean over {len(seeds)} seed(s){', ± standard deviation' * (len(seeds) > 1)}. Training and "
        f"held-out images are {seeds[0]['yardstick']:.3f} apart.",
        "",
        "| T | " + " | ".join(calls) + " |",
        "|---|" + "---:|" * len(calls),
    ]
    for name, rows in found.items():
        lines.append(f"| {name} | " + " | ".join(both(rows, nfe) for nfe in calls) + " |")
    best = {nfe: nearest(found, nfe) for nfe in calls}
    cells = [f"{both(found[name], nfe)} (T {name})" for nfe, name in best.items()]
    return "\n".join([*lines, f"| best by training images | {' | '.join(cells)} |"]) + "\n"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument(
        "--temperatures", type=lambda text: text.split(","), default=["1", "1.05", "1.1"], metavar="T,…"
    )
    words = parser.parse_args()
    found = [measured(words.base, words.temperatures, seed, words.overrides) for seed in words.seeds]
    tree = {**facts("temperature", words), "measured": found}
    write("temperature", tree, markdown(tree))


if __name__ == "__main__":
    main()
