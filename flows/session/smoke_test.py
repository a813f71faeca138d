"""A rehearsal: the reduced recipe through all stages, in a store of its own that is removed, without Prefect."""

from __future__ import annotations

import tempfile
from pathlib import Path

from flows.session.display import display
from flows.session.logs import forward_logs
from flows.session.session import Session
from pipeline.engine.execute import execute, failure
from pipeline.recipe import smoke_test
from pipeline.recipe.recipe import Recipe
from pipeline.runtime.device import prepare
from storage.artifact import Artifact


def run_smoke_test(recipe: Recipe, until: str | None = None) -> dict[str, Artifact]:
    """The manifests of what was made; their files are gone. Raises FlowctlError for what would fail later.

    On a GPU batches are those of the recipe. What only whole trainings need is not rehearsed: room on the disk, and
    the teacher's sampling.
    """
    reduced = smoke_test.reduced(recipe, whole_batches=prepare(recipe.compute).type == "cuda")
    made: dict[str, Artifact] = {}
    with tempfile.TemporaryDirectory(prefix="flowctl-smoke-test-") as home, display() as shown, forward_logs(shown):
        session = Session.open(reduced, (), until, Path(home), shown)
        session.store.prepare()
        for name, node in session.nodes.items():
            shown.begin(name)
            try:
                outcome = execute(
                    node,
                    {role: made[role] for role in node.inputs},
                    session.store,
                    reduced.compute,
                    listeners=(shown.report,),
                )
            except Exception as error:
                raise failure(name, error) from error
            made[name] = outcome.artifact
            shown.end(name, outcome)
    return made
