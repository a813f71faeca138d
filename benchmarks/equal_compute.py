"""Is a teacher worth its compute? Other couplings, whose students are trained for as many FLOPs as all of NFM.

    python -m benchmarks.equal_compute                              # one seed; resumes after any stop
    python -m benchmarks.equal_compute --seeds 0,1,2 --couplings nfm,ot
    python -m benchmarks.equal_compute --base nfm-fashion --set data.size=14     # hours on a CPU

The base recipe trains a teacher, encodes a bank and trains a student. Every other student gets the FLOPs of all three,
as `flowctl plan` counts them: it sees more images, with the same network, batch, warm-up and learning rates. Each row
is sampled as the base recipe's student is. Writes benchmarks/results/equal-compute-BASE.{json,md}.
"""

from __future__ import annotations

from typing import Any

from benchmarks.matrix import (
    STUDENT_ONLY,
    WITHOUT_TEACHER,
    artifacts_of,
    both,
    distances,
    facts,
    frechet_scores,
    options,
    run_name,
    write,
)
from pipeline.cost.image_shape import image_shape
from pipeline.cost.parts import REST, parts
from pipeline.engine.dag import build
from pipeline.outputs.results import EvaluationResult
from pipeline.recipe.load import load
from pipeline.recipe.recipe import Recipe
from storage.required import required

TRAINED = ("teacher", "bank", "potentials", "student")
COUPLINGS = {"nfm": [], **WITHOUT_TEACHER}


def flops(recipe: Recipe) -> dict[str, float]:
    """Of each stage until the student is trained; scores and pictures are left out."""
    shape = required(image_shape(recipe.data, None), "images of a known size")
    nodes = build(recipe)
    return {
        name: sum(
            part.amount * required(part.work, "counted work")().flops
            for part in parts(nodes[name], shape, recipe.compute)
            if part.name not in (REST, "quality") or name == "potentials"
        )
        for name in TRAINED
        if name in nodes
    }


def rules(base: str, coupling: str, seed: int, overrides: list[str]) -> list[str]:
    """What a row changes in the base recipe; first among it, the images that its student sees."""
    fixed = [*STUDENT_ONLY, *overrides, f"seed={seed}"]
    whole = flops(load(base, fixed))
    changed = [*COUPLINGS[coupling], *fixed, f"name={run_name(base, 'equal-compute', coupling)}"]
    recipe = load(base, changed)
    own = flops(recipe)
    left = sum(whole.values()) - sum(own.values()) + own["student"]
    images = round(recipe.student.training.images * left / own["student"])
    return [f"student.training.images={images}", *changed]


def measured(base: str, coupling: str, seed: int, overrides: list[str]) -> dict[str, Any]:
    """The scores and costs of one row; missing stages are run first."""
    changed = rules(base, coupling, seed, overrides)
    recipe, artifacts = load(base, changed), artifacts_of(base, changed)
    evaluation = EvaluationResult.model_validate(artifacts["evaluation"].metrics)
    scores = [score for score in frechet_scores(evaluation) if score.model == "student"]
    return {
        "metric": scores[0].metric,
        "protocol": evaluation.protocol,
        **distances(scores),
        "yardstick": artifacts["reference"].metrics["held_out"],
        "images": recipe.student.training.images,
        "flops": flops(recipe),
        "seconds": {name: artifacts[name].provenance.wall_seconds for name in TRAINED if name in artifacts},
        "resumed": [name for name in TRAINED if name in artifacts and artifacts[name].provenance.resumed],
    }


def markdown(tree: dict[str, Any]) -> str:
    """One table: both distances by the number of calls, and the costs."""
    rows = tree["rows"]
    first = next(iter(rows.values()))[0]
    calls = list(first["train"])
    lines = [
        f"# The same compute on {tree['base']}",
        "",
        f"`{tree['command']}` on {tree['processor']}. {first['metric']} to the training / held-out images by NFE, "
        f"lower is better; mean over {len(tree['seeds'])} seed(s){', ± standard deviation' * (len(tree['seeds']) > 1)}."
        f" Training and held-out images are {first['yardstick']:.3f} apart. TFLOPs before the student, which are those "
        "of teacher and bank, or of potentials, and of the student.",
        "",
        "| coupling | " + " | ".join(calls) + " | images seen by the student | TFLOPs |",
        "|---|" + "---:|" * (len(calls) + 2),
    ]
    for coupling, found in rows.items():
        student = found[0]["flops"]["student"]
        before = sum(found[0]["flops"].values()) - student
        cost = f"{found[0]['images']:,} | {before / 1e12:.1f} + {student / 1e12:.1f}"
        lines.append(f"| {coupling} | " + " | ".join(both(found, nfe) for nfe in calls) + f" | {cost} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--couplings", type=lambda text: text.split(","), default=list(COUPLINGS), metavar="NAME,…")
    words = parser.parse_args()
    rows = {
        coupling: [measured(words.base, coupling, seed, words.overrides) for seed in words.seeds]
        for coupling in words.couplings
    }
    tree = {**facts("equal_compute", words), "rows": rows}
    write("equal-compute", tree, markdown(tree))


if __name__ == "__main__":
    main()
