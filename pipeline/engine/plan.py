"""The plan: for each stage of a recipe, whether it is reused, fetched, resumed or run, and why."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.engine.dag import Node
from pipeline.engine.remote import offered
from pipeline.engine.rerun import is_requested, reusable, started
from pipeline.recipe.fingerprint import differences, fingerprint_fields
from pipeline.runtime.job import Saved, read_saved
from storage.artifact import Artifact
from storage.remote import Remote
from storage.store import Store

Action = Literal["reuse", "fetch", "resume", "run"]


@dataclass(frozen=True)
class Step:
    """The action of a run for one node, and the reason."""

    node: Node
    action: Action
    reason: str
    artifact: Artifact | None = None


def plan(
    nodes: Mapping[str, Node], store: Store, force: Collection[str] = (), remote: Remote | None = None
) -> list[Step]:
    """A step for each node, in the order of the DAG. Artifacts missing from the store are looked up on `remote`;
    `force` has the fingerprints of stages that are to be rerun.

    Raises RemoteError if the remote does not answer, DamageError that names the flaw of an artifact there, and
    NewerFormat for an artifact of a newer version.
    """
    published = [artifact for artifact in store.artifacts() if isinstance(artifact, Artifact)]
    return [_step(node, store, published, node.fingerprint in force, remote) for node in nodes.values()]


def outline(steps: list[Step]) -> list[dict[str, Any]]:
    """A plan as plain data, with the identity of the sources outside the store."""
    return [
        {"stage": step.node.name, "action": step.action, "reason": step.reason, "fingerprint": step.node.fingerprint}
        | ({"source": source_of(step.node)} if step.node.external else {})
        for step in steps
    ]


def source_of(node: Node) -> dict[str, Any]:
    """The record of a stage that reads from outside the store."""
    return {"settings": node.config.model_dump(mode="json"), "digest": node.external}


def _step(node: Node, store: Store, published: list[Artifact], forced: bool, remote: Remote | None) -> Step:
    flaws: list[str] = []
    artifact = reusable(node, store, lambda damage: flaws.append(f"the artifact is damaged: {damage}"))
    if forced or is_requested(node, store):
        saved = read_saved(store.work(node.name, node.fingerprint)) if started(node, store) else None
        return Step(node, "resume" if saved else "run", "forced by --force" + (f", {_saved(saved)}" if saved else ""))
    if artifact is not None:
        return Step(node, "reuse", _created(artifact), artifact)
    if remote is not None and (there := offered(node, remote)) is not None:
        return Step(node, "fetch", "; ".join([*flaws, f"{_created(there)}, from {remote.url}"]))
    if flaws:
        return Step(node, "run", flaws[0])
    saved = read_saved(store.work(node.name, node.fingerprint))
    if saved is not None:
        return Step(node, "resume", _saved(saved))
    return Step(node, "run", _why_new(node, published))


def _saved(saved: Saved) -> str:
    return f"saved at {saved.done:,} of {saved.total:,} {saved.unit}"


def _created(artifact: Artifact) -> str:
    return f"created {artifact.provenance.minute}"


def _why_new(node: Node, published: list[Artifact]) -> str:
    """What differs from the most similar artifact of the same stage, of this recipe or of the same data."""
    data = node.inputs.get("data")
    candidates = [
        artifact
        for artifact in published
        if artifact.stage == node.name
        and (artifact.name == node.label or (data is not None and artifact.inputs.get("data") == data.fingerprint))
    ]
    if not candidates:
        return "no artifact yet"
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
