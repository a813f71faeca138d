"""Recipes at several seeds: find their runs in the store, and run the missing ones one after another."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flows.session.recipes import load
from flows.session.recorded import finished_nodes
from pipeline.engine.rerun import valid_artifact
from pipeline.recipe.recipe import Recipe
from pipeline.reporting.compare import SeedRun, run_of
from storage.artifact import Artifact
from storage.errors import DamageError, MissingError, StageFailed, UsageError
from storage.store import Store

PROGRAM = (sys.executable, "-m", "flows.cli")


class ChildFailed(StageFailed):
    """A `flowctl run` that `compare --run` started failed or was stopped."""

    retryable = True


@dataclass(frozen=True)
class RunRequest:
    """A recipe at one seed, and the command that runs it."""

    recipe: Recipe
    label: str  # of its row in the comparison: with seeds, the name that all of them share
    words: tuple[str, ...]  # of the command line after `flowctl`

    @property
    def command(self) -> str:
        return shlex.join(["flowctl", *self.words])

    def __str__(self) -> str:
        return f"{self.label} at seed {self.recipe.seed}"


def requests(recipes: Sequence[str], seeds: Sequence[int] = (), overrides: Sequence[str] = ()) -> list[RunRequest]:
    """Each recipe, by name or file, at each seed; without seeds at the recipe's own. The stages data and reference have
    separate seeds, so all runs share them.

    Raises RecipeError for an invalid recipe, UsageError for one that is named twice.
    """
    items = []
    for name in recipes:
        label = load(name, overrides).name
        for own in [[f"seed={seed}"] for seed in seeds] or [[]]:
            changes = [*overrides, *own]
            words = [word for change in changes for word in ("--set", change)]
            items.append(RunRequest(load(name, changes), label, ("run", name, *words)))
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
        return runs
    if not run_missing:
        raise MissingError(
            "compare needs recipes with results",
            ", ".join(map(str, missing)),
            "Add --run, or run: " + "; ".join(item.command for item in missing),
        )
    for number, item in enumerate(missing, 1):
        tell(f"[{number} of {len(missing)}] {item.command}")
        code = _run_child([*PROGRAM, *item.words])
        if code:
            raise ChildFailed(f"`{item.command}` ended with exit code {code}. Finished stages are stored.")
    return collect(items, store)


def _run_child(command: Sequence[str]) -> int:
    """The exit code of the command in a child process: Prefect can be configured only once per process.

    The terminal sends Ctrl-C to the child too; SIGTERM is forwarded. In both cases this process waits until the child
    has saved. The child's stdout goes to stderr, because stdout is for the comparison.
    """
    child: subprocess.Popen | None = None

    def pass_on(number: int, frame: object) -> None:
        if child is not None and number == signal.SIGTERM:
            child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        child = subprocess.Popen(command, stdout=2)
        return child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
