"""Stages that are made anew although their artifacts are there (--force): the wish is kept until it is fulfilled.

It stands in the stage's work directory, and goes with that when the artifact is published. So a run that was
interrupted goes on with what it was asked to make anew, whoever goes on with it and however.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

from pipeline.engine.dag import Node
from storage.artifact import MANIFEST
from storage.atomic import sha256_file, write_json
from storage.store import Store, remove_tree

REQUEST = "rerun.json"


def request(nodes: Mapping[str, Node], stages: Collection[str], store: Store) -> None:
    """Have these stages made anew. Where some of them wait for that already, an earlier run was interrupted: then they
    are what is left of the wish, and those that it had made are not made once more."""
    if any(is_requested(nodes[stage], store) for stage in stages):
        return
    for stage in stages:
        work = store.work(stage, nodes[stage].fingerprint)
        work.mkdir(parents=True, exist_ok=True)
        write_json(work / REQUEST, {"replaces": _present(nodes[stage], store), "begun": False})


def is_requested(node: Node, store: Store) -> bool:
    """Whether the stage is to be made anew: asked for, and what is there is still what was there then."""
    wish = _request(store.work(node.name, node.fingerprint))
    return wish is not None and wish["replaces"] == _present(node, store)


def start(work: Path) -> None:
    """Drop what was saved before the wish; of later calls for the same wish, nothing. Under the stage's lock."""
    wish = _request(work)
    if wish is not None and not wish["begun"]:
        for left in list(work.iterdir()):
            if left.name != REQUEST:
                remove_tree(left)
        write_json(work / REQUEST, {**wish, "begun": True})


def started(node: Node, store: Store) -> bool:
    """Whether what is saved was made for the wish."""
    wish = _request(store.work(node.name, node.fingerprint))
    return wish is not None and wish["begun"]


def _present(node: Node, store: Store) -> str | None:
    """The manifest that stands under the node's fingerprint: of an artifact made anew it is another.

    Its time counts too, for a stage of no work may be made twice in a second, with the same words.
    """
    for directory in store.directories(node.name, node.fingerprint):
        manifest = directory / MANIFEST
        if manifest.is_file():
            return f"{sha256_file(manifest)} of {manifest.stat().st_mtime_ns}"
    return None


def _request(work: Path) -> dict | None:
    try:
        wish = json.loads((work / REQUEST).read_bytes())
        return {"replaces": wish["replaces"], "begun": bool(wish["begun"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None
