"""Evaluations in the store."""

from __future__ import annotations

from collections.abc import Sequence

from flows.session import Session
from pipeline.load import load
from pipeline.plan import sound
from storage.artifact import Artifact
from storage.errors import InputError
from storage.store import Store


def evaluations(recipe: str | None = None, overrides: Sequence[str] = ()) -> list[Artifact]:
    """All sound ones, or that of one recipe. Raises InputError where the recipe has none yet."""
    if recipe is None:
        return [found for found in Store().artifacts() if isinstance(found, Artifact) and found.stage == "evaluation"]
    session = Session.open(load(recipe, overrides))
    artifact = sound(session.nodes["evaluation"], session.store)
    if artifact is None:
        raise InputError("results need a finished evaluation", recipe,
                         f"`flowctl run {recipe}` makes it; `flowctl results` lists all there are")
    return [artifact]
