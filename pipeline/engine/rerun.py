"""Reruns that the user asked for (--force), and whether an artifact can be reused.

The request is a file in the stage's work directory. It lasts until a new artifact is published, so that an interrupted
run resumes the rerun, whichever command or process resumes it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TypedDict

from pydantic import ValidationError

from pipeline.engine.dag import Node
from pipeline.engine.saved_work import clear
from storage.artifact import MANIFEST, Artifact, NewerFormat
from storage.atomic import sha256_file, write_json
from storage.errors import DamageError
from storage.store import Store

REQUEST = "rerun.json"


class Request(TypedDict):
    """What one command asked for: when, in seconds; by the fingerprints of its stages the manifest of the artifact that
    is to be replaced; and by the names of its runs the fingerprint of the stage that they end with."""

    asked: float
    replaces: dict[str, str | None]
    runs: dict[str, str]


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


def wanted(
    nodes: Collection[Node], runs: Mapping[str, str], store: Store, interrupted: Iterable[Request] = ()
) -> Request:
    """The request of these runs for a rerun of these nodes: the same one if it is pending or among the `interrupted`,
    else a new one."""
    new = Request(
        asked=time.time(), replaces={node.fingerprint: _manifest(node, store) for node in nodes}, runs=dict(runs)
    )
    for asked in (*pending(nodes, store), *interrupted):
        if asked["replaces"].keys() == new["replaces"].keys() and asked["runs"] == new["runs"]:
            return asked
    return new


def not_yet_rerun(asked: Request, nodes: Collection[Node], store: Store) -> list[Node]:
    """Which of these nodes the request has not rerun yet."""
    return [node for node in nodes if asked["replaces"][node.fingerprint] == _manifest(node, store)]


def request(asked: Request, nodes: Collection[Node], store: Store) -> None:
    """Ask for a rerun of the nodes that are left. What another request has pending is resumed, not begun again."""
    for node in not_yet_rerun(asked, nodes, store):
        work = store.work(node.name, node.fingerprint)
        there, begun = _read(work)
        if there != asked:
            _write(work, asked, begun=begun and is_requested(node, store))


def pending(nodes: Iterable[Node], store: Store) -> list[Request]:
    """The requests that are pending for these nodes, each once."""
    found = [asked for node in nodes if (asked := _pending(node, store)) is not None]
    return list({asked["asked"]: asked for asked in found}.values())


def is_requested(node: Node, store: Store) -> bool:
    """Whether a rerun is pending: requested, and the artifact is still the one that it replaces."""
    return _pending(node, store) is not None


def start(work: Path) -> None:
    """Delete work saved before the request. A second call does nothing. Call under the stage's lock."""
    asked, begun = _read(work)
    if asked is not None and not begun:
        clear(work, but=REQUEST)
        _write(work, asked, begun=True)


def started(node: Node, store: Store) -> bool:
    """Whether the saved work belongs to the requested rerun."""
    _, begun = _read(store.work(node.name, node.fingerprint))
    return begun


def _pending(node: Node, store: Store) -> Request | None:
    asked, _ = _read(store.work(node.name, node.fingerprint))
    if asked is None or node.fingerprint not in asked["replaces"]:
        return None
    return asked if asked["replaces"][node.fingerprint] == _manifest(node, store) else None


def _manifest(node: Node, store: Store) -> str | None:
    """Digest and time of the manifest under the node's fingerprint: a new artifact changes them.

    The time counts because a short stage can run twice in a second and write the same bytes.
    """
    for directory in store.directories(node.name, node.fingerprint):
        manifest = directory / MANIFEST
        if manifest.is_file():
            return f"{sha256_file(manifest)} of {manifest.stat().st_mtime_ns}"
    return None


def _read(work: Path) -> tuple[Request | None, bool]:
    """The request in a work directory, and whether its rerun has begun."""
    try:
        facts = json.loads((work / REQUEST).read_bytes())
        asked = Request(asked=float(facts["asked"]), replaces=dict(facts["replaces"]), runs=dict(facts["runs"]))
        return asked, bool(facts["begun"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, False


def _write(work: Path, asked: Request, begun: bool) -> None:
    work.mkdir(parents=True, exist_ok=True)
    write_json(work / REQUEST, {**asked, "begun": begun})
