"""The identity of the sources that runs have read, which identifies finished results without the sources.

Images and weights may have moved, changed or stayed on another machine since. A run records the settings of each stage
that reads from outside the store, and the digest of the files that the stage read.
"""

from __future__ import annotations

from contextlib import suppress

from pydantic import ValidationError

from flows.session.runs import records
from pipeline.engine.dag import Node, Recorded, build
from pipeline.recipe.recipe import Recipe
from pipeline.recipe.sections import Config
from storage.store import Store


def finished_nodes(recipe: Recipe, store: Store) -> dict[str, Node]:
    """The recipe's nodes as its latest run identified them; where it has none, as a run of another recipe did.

    Raises InputError where no run did and a source is lost.
    """
    return build(recipe, store.home / "cache", _recorded(recipe.name, store))


def _recorded(recipe: str, store: Store) -> Recorded:
    sources = [
        (step["stage"], step["source"])
        for facts in sorted(records(store.home), key=lambda facts: facts["name"] == recipe)
        for step in facts.get("plan", [])
        if isinstance(step, dict) and "source" in step
    ]

    def digest(stage: str, config: Config) -> str | None:
        """The digest in the latest record of this stage with these settings; the recipe's own come last, and count."""
        for name, source in reversed(sources):
            with suppress(ValidationError, KeyError, TypeError):  # of another version
                if name == stage and type(config).model_validate(source["settings"]) == config:
                    return source["digest"]
        return None

    return digest
