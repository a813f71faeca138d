"""What a run of a recipe needs that is no parameter of the flow: the store, the terminal, the wish to stop."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from flows.session.display import Display
from flows.session.recorded import finished_nodes
from flows.session.runs import RunRecord
from pipeline.engine.dag import NAMES, Node, build, stages
from pipeline.engine.execute import Outcome
from pipeline.recipe.load import nearest
from pipeline.recipe.recipe import Recipe
from pipeline.runtime.job import StopSignal
from storage.errors import InputError
from storage.remote import Remote
from storage.store import Store


@dataclass
class Session:
    """One run of one recipe in this process; `deployed` says that a worker of Prefect started it.

    Artifacts are looked for, and sent to, `remote` if there is one; `unsent` says by stage why one could not be.
    """

    recipe: Recipe
    store: Store
    nodes: Mapping[str, Node]
    force: Collection[str] = ()
    display: Display = field(default_factory=Display)
    stop: StopSignal = field(default_factory=StopSignal)
    record: RunRecord | None = None
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    error: BaseException | None = None
    deployed: bool = False
    remote: Remote | None = None
    unsent: dict[str, str] = field(default_factory=dict)

    @classmethod
    def finished(cls, recipe: Recipe) -> Session:
        """A session to read results in: sources are not looked at where a run has recorded what it read."""
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
    ) -> Session:
        """Raises InputError for a stage that is unknown, or not part of the recipe, or not needed for `until`."""
        store = Store(home)
        nodes = build(recipe, store.home / "cache")
        if until is not None:
            _check("--until", until, nodes, "recipe " + recipe.name)
            nodes = needed_for(until, nodes)
        for stage in force:
            _check("--force", stage, nodes, f"recipe {recipe.name}" + (f" up to {until}" if until else ""))
        return cls(recipe, store, nodes, force, display or Display())


def needed_for(stage: str, nodes: Mapping[str, Node]) -> dict[str, Node]:
    """A stage and all it builds on, in the order of the DAG."""
    wanted, found = [nodes[stage]], set()
    while wanted:
        node = wanted.pop()
        found.add(node.name)
        wanted += node.inputs.values()
    return {name: node for name, node in nodes.items() if name in found}


def _check(option: str, stage: str, nodes: Collection[str], where: str) -> None:
    if stage not in NAMES:
        known = {*(kind.name for kind in stages()), *nodes}
        raise InputError(f"{option} names a stage", stage, nearest(stage, known))
    if stage not in nodes:
        raise InputError(f"{option} names a stage of {where}", stage, f"Its stages: {', '.join(nodes)}")


_CURRENT: ContextVar[Session | None] = ContextVar("flowctl_session", default=None)


@contextmanager
def current(session: Session) -> Iterator[None]:
    """Let the flow that is called in the block find `session`."""
    token = _CURRENT.set(session)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def find() -> Session | None:
    """The session of this process; None in a worker that Prefect started."""
    return _CURRENT.get()
