"""The plan: for each stage of a recipe, whether it is reused, fetched, resumed or run, and why."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

from pipeline.engine.dag import Node
from pipeline.engine.remote import offered
from pipeline.engine.rerun import is_requested, started
from pipeline.recipe.fingerprint import differences, fingerprint_fields
from pipeline.runtime.job import read_saved
from storage.artifact import Artifact, NewerFormat
from storage.errors import DamageError
from storage.remote import Remote
from storage.store import Store

Action = Literal["reuse", "fetch", "resume", "run"]


@dataclass(frozen=True)
class Step:
    """What will be done for one node, in words."""

    node: Node
    action: Action
    reason: str
    artifact: Artifact | None = None


def plan(
    nodes: Mapping[str, Node], store: Store, force: Collection[str] = (), remote: Remote | None = None
) -> list[Step]:
    """A step for each node, in the order of the DAG. What the store lacks is looked for on `remote`.

    Raises RemoteError where that cannot be asked, DamageError that names what does not hold there, and NewerFormat
    for an artifact that a newer version made.
    """
    published = [found for found in store.artifacts() if isinstance(found, Artifact)]
    return [_step(node, store, published, node.name in force, remote) for node in nodes.values()]


def sound(node: Node, store: Store) -> Artifact | None:
    """The node's artifact if it can be reused: fingerprint, manifest, sizes and metrics all hold.

    Raises DamageError with what does not hold, NewerFormat where that is only the version.
    """
    artifact = store.find(node.name, node.fingerprint)
    if artifact is not None:
        try:
            node.stage.result.model_validate(artifact.metrics)
        except ValidationError as error:
            raise DamageError(
                str(artifact.path("artifact.json")),
                f"metrics: {error.errors()[0]['msg']}",
                "Run the same command again: it is made anew from its inputs",
            ) from None
    return artifact


def _step(node: Node, store: Store, published: list[Artifact], forced: bool, remote: Remote | None) -> Step:
    if forced or is_requested(node, store):
        return _anew(node, store)
    flaw = None
    try:
        artifact = sound(node, store)
    except NewerFormat:
        raise  # to replace it would lose what only another version can read
    except DamageError as damage:
        artifact, flaw = None, f"the artifact is damaged: {damage}"
    if artifact is not None:
        return Step(node, "reuse", _made(artifact), artifact)
    there = offered(node, remote) if remote is not None else None
    if there is not None:
        return Step(node, "fetch", "; ".join(filter(None, (flaw, f"{_made(there)}, from {remote.url}"))))
    if flaw is not None:
        return Step(node, "run", flaw)
    saved = read_saved(store.work(node.name, node.fingerprint))
    if saved is not None:
        return Step(node, "resume", f"saved at {saved.done:,} of {saved.total:,} {saved.unit}")
    return Step(node, "run", _why_new(node, published))


def _anew(node: Node, store: Store) -> Step:
    """Of a stage that --force asked for, now or in a run that was interrupted."""
    saved = read_saved(store.work(node.name, node.fingerprint)) if started(node, store) else None
    if saved is None:
        return Step(node, "run", "forced by --force")
    return Step(node, "resume", f"forced by --force, saved at {saved.done:,} of {saved.total:,} {saved.unit}")


def _made(artifact: Artifact) -> str:
    return f"made {artifact.provenance.created[:16].replace('T', ' ')}"


def _why_new(node: Node, published: list[Artifact]) -> str:
    """What differs from the nearest artifact of the same stage, of this recipe or of the same data."""
    data = node.inputs.get("data")
    candidates = [
        artifact
        for artifact in published
        if artifact.stage == node.name
        and (artifact.name == node.label or (data is not None and artifact.inputs.get("data") == data.fingerprint))
    ]
    if not candidates:
        return "not made yet"
    explained = min((_changes(node, artifact) for artifact in candidates), key=len)
    return "; ".join(explained[:4]) if explained else "the external files or the stage's version changed"


def _changes(node: Node, artifact: Artifact) -> list[str]:
    lines = differences(artifact.config, fingerprint_fields(node.config))
    if artifact.stage_version != node.stage.version:
        lines.append(f"stage version: {artifact.stage_version} -> {node.stage.version}")
    for role in sorted({*artifact.inputs, *node.inputs}):
        before = artifact.inputs.get(role)
        after = node.inputs[role].fingerprint if role in node.inputs else None
        if before != after:
            lines.append(f"input {role}: {(before or 'none')[:8]} -> {(after or 'none')[:8]}")
    return lines
