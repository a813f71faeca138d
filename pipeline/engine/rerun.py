"""Reruns that the user asked for (--force), and whether an artifact can be reused.

The request is a file in the stage's work directory. It lasts until a new artifact is published, so that an interrupted
run resumes the rerun, whichever command or process resumes it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from pydantic import ValidationError

from pipeline.engine.dag import Node
from pipeline.engine.work import clear
from storage.artifact import MANIFEST, Artifact, NewerFormat
from storage.atomic import sha256_file, write_json
from storage.errors import DamageError
from storage.store import Store

REQUEST = "rerun.json"


def reusable(
    node: Node, store: Store, on_damage: Callable[[DamageError], None] = lambda damage: None
) -> Artifact | None:
    """The node's artifact if a run can use it as it is: valid, and no rerun is requested; None otherwise.

    `on_damage` is called with the flaw of a damaged artifact. Raises NewerFormat if only a newer version can read it.
    """
    if is_requested(node, store):
        return None
    try:
        return valid_artifact(node, store)
    except NewerFormat:
        raise  # a replacement would lose what only the newer version can read
    except DamageError as damage:
        on_damage(damage)
        return None


def valid_artifact(node: Node, store: Store) -> Artifact | None:
    """The node's artifact if its manifest, file sizes and metrics are valid; None if there is none.

    Raises DamageError that names the flaw, NewerFormat if only a newer version can read it.
    """
    artifact = store.find(node.name, node.fingerprint)
    if artifact is not None:
        check_metrics(node, artifact, str(artifact.path(MANIFEST)))
    return artifact


def check_metrics(node: Node, artifact: Artifact, where: str) -> None:
    """Raises DamageError if the artifact's metrics are not those of the node's stage."""
    try:
        node.stage.result.model_validate(artifact.metrics)
    except ValidationError as error:
        raise DamageError(
            where, f"metrics: {error.errors()[0]['msg']}", f"Replace it: `flowctl run` with --force {node.name}"
        ) from None


def request(nodes: Mapping[str, Node], stages: Collection[str], store: Store) -> None:
    """Ask for a rerun of these stages, the keys of `nodes`.

    If the same request is pending for some of them, an earlier run was interrupted: then only those are rerun, not the
    stages that the earlier run has finished. What is pending from another request is resumed, not begun again.
    """
    together = sorted(nodes[stage].fingerprint for stage in stages)
    works = {stage: store.work(nodes[stage].name, nodes[stage].fingerprint) for stage in stages}
    pending = {stage: _request(works[stage]) for stage in stages if is_requested(nodes[stage], store)}
    if any(asked and asked["together"] == together for asked in pending.values()):
        return
    for stage, work in works.items():
        if stage not in pending:
            work.mkdir(parents=True, exist_ok=True)
            asked = {"replaces": _manifest(nodes[stage], store), "begun": False, "together": together}
            write_json(work / REQUEST, asked)


def is_requested(node: Node, store: Store) -> bool:
    """Whether a rerun is pending: requested, and the artifact is still the one that it replaces."""
    asked = _request(store.work(node.name, node.fingerprint))
    return asked is not None and asked["replaces"] == _manifest(node, store)


def start(work: Path) -> None:
    """Delete work saved before the request. A second call does nothing. Call under the stage's lock."""
    asked = _request(work)
    if asked is not None and not asked["begun"]:
        clear(work, but=REQUEST)
        write_json(work / REQUEST, {**asked, "begun": True})


def started(node: Node, store: Store) -> bool:
    """Whether the saved work belongs to the requested rerun."""
    asked = _request(store.work(node.name, node.fingerprint))
    return asked is not None and asked["begun"]


def _manifest(node: Node, store: Store) -> str | None:
    """Digest and time of the manifest under the node's fingerprint: a new artifact changes them.

    The time counts because a short stage can run twice in a second and write the same bytes.
    """
    for directory in store.directories(node.name, node.fingerprint):
        manifest = directory / MANIFEST
        if manifest.is_file():
            return f"{sha256_file(manifest)} of {manifest.stat().st_mtime_ns}"
    return None


def _request(work: Path) -> dict | None:
    try:
        asked = json.loads((work / REQUEST).read_bytes())
        return {"replaces": asked["replaces"], "begun": bool(asked["begun"]), "together": asked["together"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
