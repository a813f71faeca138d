"""One side of a diff: the stages of a recipe or an artifact, with or without results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.engine.dag import NAMES, Node, build
from pipeline.engine.rerun import valid_artifact
from pipeline.recipe.fingerprint import fingerprint_fields
from pipeline.recipe.recipe import Recipe
from storage.artifact import Artifact
from storage.errors import DamageError
from storage.store import Store

NO_SETTINGS = ("name", "description")  # fields of a recipe that set nothing


@dataclass(frozen=True)
class StageOf:
    """One stage of one side.

    Attributes:
        fingerprint: of its result.
        version: of the stage's code.
        settings: those that can change the result, as a plain tree.
        inputs: fingerprint by role.
        artifact: the result, None where there is none yet.
        damage: what is wrong with the artifact, if anything.
    """

    fingerprint: str
    version: int
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    artifact: Artifact | None = None
    damage: str | None = None


@dataclass(frozen=True)
class Side:
    """A recipe, or an artifact with its inputs.

    Attributes:
        name: for readers.
        settings: the whole resolved recipe; None for an artifact, which records only what can change it.
        stages: in the order of the DAG.
    """

    name: str
    settings: Mapping[str, Any] | None
    stages: Mapping[str, StageOf]

    @property
    def artifacts(self) -> dict[str, Artifact]:
        return {name: stage.artifact for name, stage in self.stages.items() if stage.artifact is not None}


def of_recipe(recipe: Recipe, store: Store, nodes: Mapping[str, Node] | None = None) -> Side:
    """A recipe, with those of its artifacts that are in the store. Its nodes are built from its sources unless given.

    Raises InputError where a source does not exist.
    """
    stages = {}
    for name, node in (nodes or build(recipe, store.home / "cache")).items():
        artifact, damage = None, None
        try:
            artifact = valid_artifact(node, store)
        except DamageError as error:
            damage = str(error)
        stages[name] = StageOf(
            node.fingerprint,
            node.stage.version,
            fingerprint_fields(node.config),
            {role: given.fingerprint for role, given in node.inputs.items()},
            artifact,
            damage,
        )
    settings = recipe.model_dump(mode="json")
    return Side(recipe.name, {key: value for key, value in settings.items() if key not in NO_SETTINGS}, stages)


def of_artifact(root: Path) -> Side:
    """An artifact with those of its inputs, and theirs, that lie in the same store.

    Raises DamageError where its manifest cannot be read.
    """
    first = Artifact.read(root.absolute())
    store = Store(first.root.parents[2]) if first.root.parents[1].name == "artifacts" else None
    artifacts, missing = {first.stage: first}, list(first.inputs.items())
    while missing:
        stage, fingerprint = missing.pop()
        if stage not in artifacts and store is not None and (artifact := _find(store, stage, fingerprint)) is not None:
            artifacts[stage] = artifact
            missing += artifact.inputs.items()
    stages = {
        stage: StageOf(a.fingerprint, a.stage_version, a.config, a.inputs, a)
        for stage, a in sorted(artifacts.items(), key=lambda item: NAMES.index(item[0]))
    }
    return Side(f"{first.stage}/{first.root.name}", None, stages)


def _find(store: Store, stage: str, fingerprint: str) -> Artifact | None:
    try:
        return store.find(stage, fingerprint)
    except DamageError:
        return None
