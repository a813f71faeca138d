"""Reruns that --force asks for, by one run or by all runs of a sweep.

The same command resumes: if a stage after the forced ones fails or is stopped, it does not rerun them a second time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from flows.session.runs import ended_well, of_runs
from flows.session.session import Session
from pipeline.engine import rerun
from pipeline.engine.dag import Node
from storage.store import Store


def not_yet_rerun(sessions: Sequence[Session]) -> list[str]:
    """The fingerprints of the stages that --force is to rerun."""
    asked, nodes, store = _asked(sessions)
    return [node.fingerprint for node in rerun.not_yet_rerun(asked, nodes, store)]


def request(sessions: Sequence[Session], resumes: bool = True) -> None:
    """Ask for these reruns. They last until they are done, so call this once nothing more can be refused. `resumes` is
    of a command: a flow run that a schedule starts, after one that failed, reruns."""
    rerun.request(*_asked(sessions, resumes))


def _asked(sessions: Sequence[Session], resumes: bool = True) -> tuple[rerun.Request, list[Node], Store]:
    """The request of these sessions, and the nodes that --force names, each once."""
    nodes = {session.nodes[stage].fingerprint: session.nodes[stage] for session in sessions for stage in session.force}
    runs = {session.recipe.name: list(session.nodes.values())[-1].fingerprint for session in sessions}
    store = sessions[0].store
    past = _interrupted(runs, store) if nodes and resumes else ()
    return rerun.wanted(nodes.values(), runs, store, past), list(nodes.values()), store


def _interrupted(runs: Mapping[str, str], store: Store) -> Iterator[rerun.Request]:
    """The requests of these runs, latest first, that one of them has not ended well since. A run of another command, up
    to an earlier stage say, ends none."""
    past = [facts for facts in of_runs(store.home) if facts["name"] in runs]
    made: dict[float, tuple[int, rerun.Request]] = {}  # by the time of a request, where it is found first
    for place, facts in enumerate(past):
        for asked in facts.get("reruns", ()):
            if asked.get("runs") == runs:
                made.setdefault(asked["asked"], (place, asked))
    for place, asked in reversed(made.values()):
        since = [facts for facts in past[place:] if ended_well(facts)]
        done = {(facts["name"], step["fingerprint"]) for facts in since for step in facts.get("plan", ())}
        if not runs.items() <= done:
            yield asked
