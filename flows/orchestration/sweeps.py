"""Run a sweep: the plans of its recipes, with shared stages once, and a child process for each that lacks results."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from flows.orchestration.children import Child, ChildFailed, places, run_children
from flows.orchestration.launch import check_ahead
from flows.session import reruns
from flows.session.recording import record_reused
from flows.session.session import Session
from pipeline.engine.dag import NAMES
from pipeline.engine.plan import Step, plan
from pipeline.recipe.recipe import Recipe
from pipeline.recipe.sweep import Point
from storage.errors import UsageError
from storage.remote import Remote


@dataclass(frozen=True)
class SweepRun:
    """One recipe of a sweep, with its plan."""

    session: Session
    point: Point
    steps: list[Step]

    @property
    def name(self) -> str:
        return self.session.recipe.name

    @property
    def reused(self) -> bool:
        """Whether nothing is left to do: no stage to run, and no remote that may lack one."""
        return self.session.remote is None and all(step.action == "reuse" for step in self.steps)


def open_sweep(
    recipes: Sequence[tuple[Recipe, Point]],
    force: Collection[str] = (),
    until: str | None = None,
    remote: Remote | None = None,
) -> list[SweepRun]:
    """The runs of a sweep with their plans. Raises UsageError where two of them would have the same result, or where
    several machines share a run; MissingError as `Session.open`."""
    sessions = []
    for recipe, _ in recipes:
        if recipe.compute.nnodes > 1:
            raise UsageError(
                "A sweep must run on one machine", f"nnodes={recipe.compute.nnodes}", "Run its recipes one by one."
            )
        session = Session.open(recipe, force, until)
        session.remote = remote
        sessions.append(session)
    ahead = reruns.not_yet_rerun(sessions)
    runs = [
        SweepRun(session, point, plan(session.nodes, session.store, ahead, remote))
        for session, (_, point) in zip(sessions, recipes, strict=True)
    ]
    first: dict[tuple[str, ...], str] = {}
    for run in runs:
        results = tuple(node.fingerprint for node in run.session.nodes.values())
        other = first.setdefault(results, run.name)
        if other != run.name:
            raise UsageError(
                "The runs of a sweep must have different results",
                f"{other} and {run.name}",
                "Sweep fields that change a result, before the stage of --until.",
            )
    return runs


def shared_steps(runs: Sequence[SweepRun]) -> Iterator[tuple[Step, list[SweepRun]]]:
    """Each stage once, in the order of the DAG, with the runs that need it."""
    groups: dict[str, tuple[Step, list[SweepRun]]] = {}
    for run in runs:
        for step in run.steps:
            groups.setdefault(step.node.fingerprint, (step, []))[1].append(run)
    yield from sorted(groups.values(), key=lambda group: NAMES.index(group[0].node.name))


def launch_sweep(
    runs: Sequence[SweepRun], source: str, options: Sequence[str], tell: Callable[[str], None], jobs: int | None = None
) -> list[Child]:
    """Run what is missing of the sweep of the recipe `source` with these options; the children that failed.

    Raises ChildFailed if a signal stopped the sweep. A failed run does not stop the others. A stage that is to be rerun
    is rerun once for all.
    """
    runs[0].session.store.prepare()
    check_ahead((run.session, run.steps) for run in runs)
    reruns.request([run.session for run in runs])
    for run in runs:
        if run.reused:
            record_reused(run.session, run.steps)
    children = [
        Child(run.session.recipe, source, run.point.overrides, tuple(options)) for run in runs if not run.reused
    ]
    if not children:
        return []
    at_once = places(runs[0].session.recipe.compute, len(children), jobs)
    codes = run_children(children, tell, at_once, keep_going=True)
    stopped = len(children) - len(codes)
    if stopped:
        raise ChildFailed(f"The sweep was stopped: {stopped} of {len(children)} runs were not started")
    return [child for child, code in codes.items() if code]
