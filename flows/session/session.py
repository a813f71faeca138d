"""Per-run state that is not a parameter of the flow: store, display, stop signal, record."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from flows.session.display import Display
from flows.session.recorded import finished_nodes
from flows.session.runs import RunRecord
from pipeline.engine.dag import NAMES, STAGES, Node, build
from pipeline.engine.execute import Outcome
from pipeline.recipe.load import nearest
from pipeline.recipe.recipe import Recipe
from pipeline.runtime.job import StopSignal
from storage.errors import MissingError, UsageError
from storage.remote import Remote
from storage.required import required
from storage.store import Store


@dataclass
class Session:
    """One run of one recipe in this process; `deployed` says that a Prefect worker started it.

    Artifacts are fetched from and sent to `remote`, if there is one; `unsent` says by stage why a transfer failed.
    Measured rates are stored in the store at `rates`, in `store` unless that is given.
    """

    recipe: Recipe
    store: Store
    nodes: Mapping[str, Node]
    force: Collection[str] = ()
    until: str | None = None
    display: Display = field(default_factory=Display)
    stop: StopSignal = field(default_factory=StopSignal)
    record: RunRecord | None = None
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    error: BaseException | None = None
    deployed: bool = False
    remote: Remote | None = None
    unsent: dict[str, str] = field(default_factory=dict)
    rates: Path | None = None
    lost_trackers: set[str] = field(default_factory=set)  # experiment trackers that have failed

    @classmethod
    def finished(cls, recipe: Recipe) -> Session:
        """A session to read results in: sources are not read where a run has recorded their identity."""
        store = Store()
        return cls(recipe, store, finished_nodes(recipe, store))

    @classmethod
    def open(
        cls,
        recipe: Recipe,
        force: Collection[str] = (),
        until: str | None = None,
        home: Path | None = None,
        display: Display | None = None,
        recorded: bool = False,
    ) -> Session:
        """A session to run stages in; `recorded` as `finished`, for stages that do not read the sources.

        Raises MissingError for a stage that does not exist, is not in the recipe, or is not needed for `until`;
        UsageError for `force` on several machines."""
        store = Store(home)
        nodes = finished_nodes(recipe, store) if recorded else build(recipe, store.home / "cache")
        if until is not None:
            _check("--until", until, nodes, "recipe " + recipe.name)
            nodes = needed_for(until, nodes)
        for stage in force:
            _check("--force", stage, nodes, f"recipe {recipe.name}" + (f" up to {until}" if until else ""))
        if force and recipe.compute.nnodes > 1:  # another machine may look first, find all stages finished and leave
            raise UsageError(
                "--force must run on one machine",
                f"nnodes={recipe.compute.nnodes}",
                "Run it on one machine first, or remove the artifact with `flowctl rm`.",
            )
        return cls(recipe, store, nodes, force, until, display or Display())

    @property
    def running_record(self) -> RunRecord:
        """The record of the run under way. Raises LookupError where nothing runs."""
        return required(self.record, "the record of the run")

    @contextmanager
    def waiting(self, stage: str, reason: str) -> Iterator[None]:
        """While the block lasts, the terminal, Prefect's log and `flowctl status` show that `stage` waits."""
        text = f"{stage}: waiting for {reason}"
        if self.record is not None:  # before it is shown: who reads it may ask `status`
            self.record.waits(stage, reason)
        self.display.note(text)
        if not self.deployed:  # whose display is the log
            logging.getLogger("flowctl").info("%s", text)
        try:
            yield
        finally:
            if self.record is not None:
                self.record.waits(None)

    def summary(self) -> str:
        """How many stages were run, resumed, fetched and reused: "3 run, 5 reused"."""
        actions = [outcome.action for outcome in self.outcomes.values()]
        order = ("reused", "fetched", "resumed", "run")
        return ", ".join(f"{actions.count(action)} {action}" for action in order if action in actions)


def needed_for(stage: str, nodes: Mapping[str, Node]) -> dict[str, Node]:
    """A stage and all stages that it depends on, in the order of the DAG."""
    ahead, needed = [nodes[stage]], set()
    while ahead:
        node = ahead.pop()
        needed.add(node.name)
        ahead += node.inputs.values()
    return {name: node for name, node in nodes.items() if name in needed}


def _check(option: str, stage: str, nodes: Collection[str], where: str) -> None:
    if stage not in NAMES:
        raise MissingError(f"{option} must name a stage", stage, nearest(stage, {*STAGES, *nodes}))
    if stage not in nodes:
        raise MissingError(f"{option} must name a stage of {where}", stage, f"Its stages: {', '.join(nodes)}")


_CURRENT: ContextVar[Session | None] = ContextVar("flowctl_session", default=None)


@contextmanager
def current(session: Session) -> Iterator[None]:
    """Make `session` the current one while the block lasts."""
    token = _CURRENT.set(session)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def find() -> Session | None:
    """The current session; None in a process that a Prefect worker has just started."""
    return _CURRENT.get()
