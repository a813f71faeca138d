"""Recipes at several seeds: find their runs in the store, and run the missing ones one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flows.orchestration.children import Child, ChildFailed, run_children
from flows.session.recipes import check_name, load, sweep
from flows.session.recorded import finished_nodes
from pipeline.engine.rerun import valid_artifact
from pipeline.recipe.recipe import Recipe
from pipeline.reporting.compare import SeedRun, run_of
from storage.artifact import Artifact
from storage.errors import DamageError, MissingError, UsageError
from storage.store import Store


@dataclass(frozen=True)
class RunRequest:
    """A recipe at one seed, and the child that runs it."""

    child: Child
    label: str  # of its row in the comparison: with seeds, the name that all of them share

    @property
    def recipe(self) -> Recipe:
        return self.child.recipe

    @property
    def command(self) -> str:
        return self.child.command

    def __str__(self) -> str:
        return f"{self.label} at seed {self.recipe.seed}"


def requests(recipes: Sequence[str], seeds: Sequence[int] = (), overrides: Sequence[str] = ()) -> list[RunRequest]:
    """Each recipe, by name or file, and each of a sweep, at each seed; without seeds at the recipe's own. The stages
    data and reference have separate seeds, so all runs share them.

    Raises RecipeError for an invalid recipe, UsageError for one that is named twice.
    """
    items = []
    for name in recipes:
        for recipe, point in sweep(name, overrides):
            for own in [[f"seed={seed}"] for seed in seeds] or [[]]:
                changes = (*point.overrides, *own)
                items.append(RunRequest(Child(load(name, changes), name, changes), recipe.name))
    names = [str(item) for item in items]
    duplicates = list(dict.fromkeys(name for name in names if names.count(name) > 1))
    if duplicates:
        raise UsageError(
            "Recipes of a comparison must have different names",
            ", ".join(duplicates),
            "List each once, or change `name` in one of them.",
        )
    return items


def find(item: RunRequest, store: Store) -> SeedRun | None:
    """Its run in the store; None where the student or evaluation is missing or damaged. Other stages give only their
    seconds, where their artifacts exist."""
    artifacts: dict[str, Artifact] = {}
    for name, node in finished_nodes(item.recipe, store).items():
        try:
            artifact = valid_artifact(node, store) if name != "report" else None
        except DamageError:
            continue  # `flowctl run` reports and replaces it
        if artifact is not None:
            artifacts[name] = artifact
    if not {"student", "evaluation"} <= artifacts.keys():
        return None
    return run_of(item.label, item.recipe.seed, artifacts)


def evaluations(items: Sequence[RunRequest], store: Store) -> dict[str, Artifact]:
    """The evaluation of each row of the comparison at the first of its seeds, by the row's label."""
    artifacts: dict[str, Artifact] = {}
    for item in items:
        node = finished_nodes(item.recipe, store)["evaluation"]
        if item.label not in artifacts and (artifact := valid_artifact(node, store)) is not None:
            artifacts[item.label] = artifact
    return artifacts


def collect(
    items: Sequence[RunRequest],
    store: Store,
    run_missing: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> list[SeedRun]:
    """The runs of all items, in their order; with `run_missing`, missing ones are run first.

    Raises MissingError with the commands of missing runs, without `run_missing`; StageFailed where a run fails or is
    stopped. Finished runs and saved progress stay, so that the same call resumes.
    """
    runs = [find(item, store) for item in items]
    missing = [item for item, run in zip(items, runs, strict=True) if run is None]
    if not missing:
        return [run for run in runs if run is not None]
    if not run_missing:
        raise MissingError(
            "compare needs recipes with results",
            ", ".join(map(str, missing)),
            "Add --run, or run: " + "; ".join(item.command for item in missing),
        )
    for item in missing:
        check_name(item.child.source, item.recipe)
    codes = run_children([item.child for item in missing], tell)
    for child, code in codes.items():
        if code:
            raise ChildFailed(f"`{child.command}` ended with exit code {code}. Finished stages are stored.")
    return collect(items, store)
