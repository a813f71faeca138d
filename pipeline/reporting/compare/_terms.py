"""Whether runs may share a table: what must be equal, and what is said where terms are not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.reporting.compare._run import SeedRun
from pipeline.reporting.page import words
from pipeline.reporting.page.scores import OF_A_ROW, TEACHER
from pipeline.reporting.text.numbers import plain
from storage.errors import InputError

COST = ("images_seen", "ema")  # of the training: what a fair comparison holds equal
SEED = "seed"  # of the noise that samples start from: each run's own


def by_recipe(runs: Sequence[SeedRun]) -> dict[str, list[SeedRun]]:
    """Runs by recipe, in the order given."""
    return {name: [run for run in runs if run.recipe == name] for name in dict.fromkeys(run.recipe for run in runs)}


def check(runs: Sequence[SeedRun]) -> None:
    """Raises InputError where runs were not measured under one protocol, each recipe at the same seeds of the noise."""
    if not runs:
        raise InputError("A comparison needs an evaluation", "none", "Name one or more recipes that have been run")
    names = [(run.recipe, run.seed) for run in runs]
    twice = sorted({f"{recipe} at seed {seed}" for recipe, seed in names if names.count((recipe, seed)) > 1})
    if twice:
        raise InputError(
            "Each recipe is compared once at a seed, and has a name of its own",
            ", ".join(twice),
            "Name it once, or give the recipes different names",
        )
    if not _one_protocol(runs):
        raise InputError(
            "Numbers of different protocols never share a table",
            "; ".join(_differences(runs)),
            "Give these recipes the same data, reference and evaluation settings, and run them again",
        )


def _one_protocol(runs: Sequence[SeedRun]) -> bool:
    """At each seed of the noise all recipes state one digest, and each recipe differs from seed to seed in it alone."""
    recipes = by_recipe(runs).values()
    seeds = {tuple(sorted(str(run.noise_seed) for run in some)) for some in recipes}
    digests = {(str(run.noise_seed), run.protocol) for run in runs}
    within = all(_but_seed(run) == _but_seed(some[0]) for some in recipes for run in some)
    return within and len(seeds) == 1 and len(digests) == len(set(*seeds)) and len({run.floor for run in runs}) == 1


def protocol(runs: Sequence[SeedRun]) -> str:
    """The digest that the evaluations state; where seeds of the noise differ, one of all but these."""
    stated = {run.protocol for run in runs}
    if len(stated) == 1:
        return stated.pop()
    return hashlib.sha256(json.dumps(agreed(runs), sort_keys=True).encode()).hexdigest()[:16]


def agreed(runs: Sequence[SeedRun]) -> dict[str, Any]:
    """The fields of the protocol that all runs have in common."""
    every = [common(run) for run in runs]
    return {
        name: value
        for name, value in every[0].items()
        if all(name in fields and fields[name] == value for fields in every)
    }


def common(run: SeedRun) -> dict[str, Any]:
    """The fields in which a run's scores agree, without those that belong to single rows."""
    first = run.scores[0].protocol
    return {
        field: value
        for field, value in first.items()
        if field not in OF_A_ROW and all(score.protocol.get(field) == value for score in run.scores)
    }


def _but_seed(run: SeedRun) -> dict[str, Any]:
    return {name: value for name, value in common(run).items() if name != SEED}


def unequal(runs: Sequence[SeedRun]) -> list[str]:
    """What compared runs do not have in common, one sentence each; none if terms are equal."""
    lines = []
    for model in dict.fromkeys(s.model for run in runs for s in run.scores if s.model != TEACHER):
        for field in COST:

            def values(run: SeedRun, model: str = model, field: str = field) -> set[str]:
                return {plain(s.protocol[field]) for s in run.scores if s.model == model and field in s.protocol}

            lines += _told(f"{words.model(model)}: {words.field(field)} differ", runs, values)
    lines += _told(
        "Var(v | x_t, t) was estimated differently",
        runs,
        lambda run: (
            {f"{plain(run.velocity_variance.pairs)} pairs{' within classes' * run.velocity_variance.within_classes}"}
            if run.velocity_variance
            else set()
        ),
    )
    lines += _told("times were taken on different machines", runs, lambda run: {run.machine})
    again = sorted({f"{stage} of {run.recipe} (seed {run.seed})" for run in runs for stage in run.resumed})
    if again:
        lines.append(f"taken up again, so that their times are those of the last attempt alone: {', '.join(again)}")
    return lines


def _told(what: str, runs: Sequence[SeedRun], values: Callable[[SeedRun], set[str]]) -> list[str]:
    """One line with each recipe's values where these are not all the same; runs that have none do not count."""
    told = {recipe: set().union(*map(values, some)) for recipe, some in by_recipe(runs).items()}
    if len(set().union(*told.values())) < 2:
        return []
    return [f"{what}: " + "; ".join(f"{recipe} {', '.join(sorted(found))}" for recipe, found in told.items() if found)]


def _differences(runs: Sequence[SeedRun]) -> list[str]:
    """Field by field, what each recipe's protocol says; the digests where the fields do not tell."""
    recipes = by_recipe(runs)
    lines = []
    for name in dict.fromkeys(field for run in runs for field in common(run)):
        found = {recipe: [_stated(common(run), name) for run in some] for recipe, some in recipes.items()}
        everything = {value for values in found.values() for value in values}
        # Seeds of the noise differ within a recipe by intention, but not from one recipe to the next.
        different = (
            len({tuple(sorted(values)) for values in found.values()}) > 1 if name == SEED else len(everything) > 1
        )
        if different:
            lines.append(
                f"{name}: "
                + ", ".join(f"{recipe} {' and '.join(dict.fromkeys(values))}" for recipe, values in found.items())
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
    if name not in fields:
        return "not stated"
    return str(fields[name]) if name == SEED else plain(fields[name])  # a seed is no quantity
