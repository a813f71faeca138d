"""Reruns that --force asks for, by one run or by all runs of a sweep.

The same command resumes: if a stage after the forced ones fails or is stopped, it does not rerun them a second time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from flows.session.runs import ended_well, of_runs
from flows.session.session import Session
from pipeline.engine import rerun
from pipeline.engine.dag import Node
from storage.store import Store


def left(sessions: Sequence[Session]) -> list[str]:
    """The fingerprints of the stages that --force is to rerun."""
    nodes, stages, store = _asked(sessions)
    return rerun.left(nodes, stages, store, _interrupted(sessions, stages, store))


def request(sessions: Sequence[Session]) -> None:
    """Ask for these reruns. They last until they are done, so call this once nothing more can be refused."""
    nodes, stages, store = _asked(sessions)
    rerun.request(nodes, stages, store, _interrupted(sessions, stages, store))


def _asked(sessions: Sequence[Session]) -> tuple[Mapping[str, Node], list[str], Store]:
    """All nodes by fingerprint, and the fingerprints that --force names, each once."""
    nodes = {node.fingerprint: node for session in sessions for node in session.nodes.values()}
    stages = dict.fromkeys(session.nodes[stage].fingerprint for session in sessions for stage in session.force)
    return nodes, list(stages), sessions[0].store


def _interrupted(sessions: Sequence[Session], stages: Collection[str], store: Store) -> rerun.Request | None:
    """The latest request of these runs for the same stages, if one of them has not ended well since."""
    if not stages:
        return None
    names = [session.recipe.name for session in sessions]
    past = [facts for facts in of_runs(store.home) if facts["name"] in names]
    same = [asked for facts in past for asked in facts.get("reruns", ()) if asked["replaces"].keys() == set(stages)]
    if not same:
        return None
    latest: rerun.Request = max(same, key=lambda asked: asked["asked"])
    since = [facts for facts in past if facts["began"] >= latest["asked"]]
    over = {facts["name"] for facts in since if ended_well(facts)}
    return latest if {facts["name"] for facts in since} - over else None
