"""What benchmarks of many recipes share: run one and read its artifacts, the options, a cell, the files written."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.publish import command_line, publish
from benchmarks.timing import processor
from pipeline.engine.dag import build
from pipeline.outputs.results import EvaluationResult, Score
from pipeline.recipe.load import as_name, load
from pipeline.recipe.recipe import Recipe
from storage.artifact import Artifact
from storage.store import Store

#: Base recipe, coupling, choice, seed and overrides -> the scores and costs of a row at that seed.
Measured = Callable[[str, str, str, int, list[str]], dict[str, Any]]
RESULTS = Path("benchmarks/results")
NO_TEACHER = ["teacher=null", "bank=null"]
WITHOUT_TEACHER: dict[str, list[str]] = {
    "independent": ["student.coupling=independent", *NO_TEACHER],
    "ot": ["student.coupling=ot", *NO_TEACHER],
    "loom": ["student.coupling={kind: loom, noises_per_image: 16}", *NO_TEACHER],
    "semidiscrete": ["student.coupling=semidiscrete", "potentials={}", *NO_TEACHER],
}
STUDENT_ONLY = ["pairs=null", "onestep=null", "evaluation.onestep=[]"]


def artifacts_of(base: str, rules: Sequence[str]) -> dict[str, Artifact | None]:
    """The artifacts of a recipe with these overrides, up to the evaluation; computed first where the store has none."""
    words = [word for rule in rules for word in ("--set", rule)]
    subprocess.run([sys.executable, "-m", "flows.cli", "run", base, *words, "--until", "evaluation"], check=True)
    store = Store()
    nodes = build(load(base, rules), store.home / "cache")
    return {name: store.find(name, node.fingerprint) for name, node in nodes.items() if name != "report"}


def frechet_scores(evaluation: EvaluationResult) -> list[Score]:
    """The Frechet distances, which come first; an override may ask for further metrics."""
    return [score for score in evaluation.scores if score.metric == evaluation.scores[0].metric]


def distances(scores: Iterable[Score]) -> dict[str, dict[str, float | None]]:
    """Both distances of a model's samplers, by their calls."""
    scores = list(scores)
    return {
        "train": {f"{score.nfe:g}": score.value for score in scores},
        "held_out": {f"{score.nfe:g}": score.value_held_out for score in scores},
    }


def run_name(base: str, *parts: str) -> str:
    """The name of a run of this base recipe or file, from parts like `soften-0.4`."""
    return as_name("-".join([Path(base).stem, *parts]))


def sweep(solver: str, calls: Sequence[int]) -> str:
    """Samplers of an evaluation, from N(0, I) on the uniform grid."""
    return f"[{{solver: {solver}, grid: uniform, nfe: {list(calls)}}}]"


def shortened(recipe: Recipe, share: float) -> list[str]:
    """Overrides: this share of the images and warm-up of each training and of the pairs; at least a batch of each."""
    rules = []
    for section in ("teacher", "student", "onestep"):
        if (config := getattr(recipe, section)) is not None:
            training = config.training
            for name in ("images", "warmup"):
                value = max(training.batch, round(share * getattr(training, name)))
                rules.append(f"{section}.training.{name}={value}")
    if recipe.pairs is not None:
        rules.append(f"pairs.count={max(recipe.onestep.training.batch, round(share * recipe.pairs.count))}")
    return rules


def options(description: str | None) -> argparse.ArgumentParser:
    """The options that all of these benchmarks have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="nfm-digits", metavar="RECIPE")
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[0])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    return parser


def crossed(words: argparse.Namespace, name: str, choices: Iterable[str], measured: Measured) -> list[dict[str, Any]]:
    """A row for each coupling and each of the choices, which `name` says, with what was measured at each seed."""
    return [
        {
            "coupling": coupling,
            name: choice,
            "seeds": [measured(words.base, coupling, choice, seed, words.overrides) for seed in words.seeds],
        }
        for coupling in words.couplings
        for choice in choices
    ]


def cell(values: Sequence[float | None]) -> str:
    """Mean and, over several seeds, standard deviation; a dash where a value is missing."""
    if None in values:
        return "–"
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{spread}"


def both(rows: Sequence[dict[str, Any]], nfe: str) -> str:
    """The distances to the training and to the held-out images by these calls, over the seeds."""
    return " / ".join(cell([row[key][nfe] for row in rows]) for key in ("train", "held_out"))


def nearest(found: dict[str, list[dict[str, Any]]], nfe: str) -> str:
    """Of choices, each with its row of distances at each seed, the nearest to the training images by these calls."""
    return min(found, key=lambda name: statistics.fmean(row["train"][nfe] for row in found[name]))


def facts(module: str, words: argparse.Namespace) -> dict[str, Any]:
    """How the figures were taken."""
    return {"command": command_line(module), "processor": processor(), "base": words.base, "seeds": words.seeds}


def write(name: str, tree: dict[str, Any], text: str) -> None:
    """Write the figures and their tables, named by the base recipe and the number of seeds, and print the tables."""
    seeds = len(tree["seeds"])
    name = f"{name}-{Path(tree['base']).stem}" + (f"-{seeds}-seeds" if seeds > 1 else "")
    publish(RESULTS, name, tree, text)
    print(text)
