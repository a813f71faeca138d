"""Whether runs may share a table: terms that must be equal, and notes where they are not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pipeline.reporting.compare._run import SeedRun
from pipeline.reporting.scores.protocol import BUDGET, SEED, ProtocolError, stated
from pipeline.reporting.scores.protocol import agreed as agreed_scores
from pipeline.reporting.scores.table import TEACHER
from pipeline.reporting.text import names
from pipeline.reporting.text.numbers import plain
from storage.checksummed_json import json_digest
from storage.errors import InputError, MissingError

SEED_OF_ITS_OWN = ("data", "source", "reference", "report")  # which all seeds of a recipe share by intention


def by_recipe(runs: Sequence[SeedRun]) -> dict[str, list[SeedRun]]:
    """Runs by recipe, in the order given."""
    return {name: [run for run in runs if run.recipe == name] for name in dict.fromkeys(run.recipe for run in runs)}


def check(runs: Sequence[SeedRun]) -> None:
    """Raises ProtocolError where runs were not measured under one protocol, each recipe at the same seeds."""
    if not runs:
        raise MissingError("A comparison needs an evaluation", "none", "Name recipes that have been run.")
    runs_at = [f"{run.recipe} at seed {run.seed}" for run in runs]
    twice = sorted({run for run in runs_at if runs_at.count(run) > 1})
    if twice:
        raise InputError("Each recipe must come once at a seed", ", ".join(twice), "Rename one of the recipes.")
    shared = _shared_stages(runs)
    pinned = [f"seeds {seeds} of {recipe}" for recipe, seeds, stage in shared if stage == "evaluation"]
    if pinned:
        raise InputError(
            "Each seed must have another result",
            f"one for {' and '.join(pinned)}",
            "Leave the seeds of single stages, such as student.seed and evaluation.seed, out of the recipe.",
        )
    if not _one_protocol(runs):
        raise ProtocolError(
            "Numbers in one table must share one protocol",
            "; ".join(_differences(runs)),
            "Give these recipes the same data, reference and evaluation settings, and run them again.",
        )


def _one_protocol(runs: Sequence[SeedRun]) -> bool:
    """At each seed of the noise all recipes state one digest, and each recipe differs from seed to seed in it alone."""
    recipes = by_recipe(runs).values()
    seeds = {tuple(sorted(str(run.noise_seed) for run in some)) for some in recipes}
    digests = {(str(run.noise_seed), run.protocol) for run in runs}
    within = all(_but_seed(run) == _but_seed(some[0]) for some in recipes for run in some)
    return within and len(seeds) == 1 and len(digests) == len(set(*seeds)) and len({run.floor for run in runs}) == 1


def _shared_stages(runs: Sequence[SeedRun]) -> list[tuple[str, str, str]]:
    """(recipe, seeds, stage) where a recipe's seeds share a result that should differ with the seed."""
    found = []
    for recipe, some in by_recipe(runs).items():
        for stage in dict.fromkeys(stage for run in some for stage in run.fingerprints if stage not in SEED_OF_ITS_OWN):
            for fingerprint in dict.fromkeys(run.fingerprints[stage] for run in some if stage in run.fingerprints):
                seeds = [run.seed for run in some if run.fingerprints.get(stage) == fingerprint]
                if len(seeds) > 1:
                    found.append((recipe, " and ".join(map(str, seeds)), stage))
    return found


def protocol(runs: Sequence[SeedRun]) -> str:
    """The digest that the evaluations state; where seeds of the noise differ, one of all but these."""
    stated = {run.protocol for run in runs}
    if len(stated) == 1:
        return stated.pop()
    return json_digest(agreed(runs))[:16]


def agreed(runs: Sequence[SeedRun]) -> dict[str, Any]:
    """The fields of the protocol that all scores of all runs have in common."""
    return agreed_scores(score for run in runs for score in run.scores)


def _but_seed(run: SeedRun) -> dict[str, Any]:
    return {name: value for name, value in agreed_scores(run.scores).items() if name != SEED}


def unequal(runs: Sequence[SeedRun]) -> list[str]:
    """Unequal terms of compared runs, one sentence each; none if terms are equal."""
    lines = []
    for model in dict.fromkeys(s.model for run in runs for s in run.scores if s.model != TEACHER):
        for field in BUDGET:

            def values(run: SeedRun, model: str = model, field: str = field) -> set[str]:
                return {plain(s.protocol[field]) for s in run.scores if s.model == model and field in s.protocol}

            lines += _differ(f"{names.model(model)}: {names.field(field)} differ", runs, values)
    for stage, field in dict.fromkeys((s, f) for run in runs for s, words in run.trained.items() for f in words):

        def setting(run: SeedRun, stage: str = stage, field: str = field) -> set[str]:
            return {run.trained[stage][field]} if field in run.trained.get(stage, {}) else set()

        lines += _differ(f"{names.model(stage)}: {field} differs", runs, setting)
    lines += _differ(
        "Var(v | x_t, t) was estimated differently",
        runs,
        lambda run: (
            {f"{plain(run.velocity_variance.pairs)} pairs{' within classes' * run.velocity_variance.within_classes}"}
            if run.velocity_variance
            else set()
        ),
    )
    lines += [
        f"seeds {seeds} of {recipe} share one {stage}, whose spread ± leaves out"
        for recipe, seeds, stage in _shared_stages(runs)
    ]
    lines += _differ("times were taken on different machines", runs, lambda run: {run.machine})
    again = sorted({f"{stage} of {run.recipe} (seed {run.seed})" for run in runs for stage in run.resumed})
    if again:
        lines.append(f"resumed runs: times cover the last attempt only: {', '.join(again)}")
    return lines


def _differ(what: str, runs: Sequence[SeedRun], values: Callable[[SeedRun], set[str]]) -> list[str]:
    """One line with each recipe's values where these are not all the same; runs without a value do not count."""
    by_recipe_values = {recipe: set().union(*map(values, some)) for recipe, some in by_recipe(runs).items()}
    if len(set().union(*by_recipe_values.values())) < 2:
        return []
    return [
        f"{what}: "
        + "; ".join(
            f"{recipe} {', '.join(sorted(stated_values))}"
            for recipe, stated_values in by_recipe_values.items()
            if stated_values
        )
    ]


def _differences(runs: Sequence[SeedRun]) -> list[str]:
    """Field by field, each recipe's protocol; the digests where no field differs."""
    recipes = by_recipe(runs)
    lines = []
    for name in dict.fromkeys(field for run in runs for field in agreed_scores(run.scores)):
        stated_values = {
            recipe: [_stated(agreed_scores(run.scores), name) for run in some] for recipe, some in recipes.items()
        }
        everything = {value for values in stated_values.values() for value in values}
        # Seeds of the noise differ within a recipe by intention, but not from one recipe to the next.
        different = (
            len({tuple(sorted(values)) for values in stated_values.values()}) > 1
            if name == SEED
            else len(everything) > 1
        )
        if different:
            lines.append(
                f"{name}: "
                + ", ".join(
                    f"{recipe} {' and '.join(dict.fromkeys(values))}" for recipe, values in stated_values.items()
                )
            )
    if len({run.floor for run in runs}) > 1:
        lines.append(
            "floor: "
            + ", ".join(
                f"{recipe} {' and '.join(dict.fromkeys(f'{run.floor:g}' for run in some))}"
                for recipe, some in recipes.items()
            )
        )
    return lines or [
        "digest: "
        + ", ".join(
            f"{recipe} {' and '.join(dict.fromkeys(run.protocol for run in some))}" for recipe, some in recipes.items()
        )
    ]


def _stated(fields: dict[str, Any], name: str) -> str:
    return stated(name, fields[name]) if name in fields else "not stated"
