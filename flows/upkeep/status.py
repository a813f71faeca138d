"""Unfinished stages of a store, by any process: from work directories, locks and run records alone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from flows.session import forecasts
from flows.session.runs import alive, keys_of, records
from pipeline.engine.dag import NAMES
from pipeline.engine.rerun import REQUEST
from pipeline.runtime.job import PROGRESS, SAVED, read_saved
from storage.atomic import read_facts
from storage.locks import held
from storage.store import PREFIX, Key, Store

FIGURES = ("done", "total", "unit", "rate", "seconds_left", "began", "time")  # of progress


def unfinished(store: Store) -> list[dict[str, Any]]:
    """One entry per stage that is running, waiting or stopped, running ones first. Unknown values are None."""
    every = list(records(store.home))
    living = [facts for facts in every if facts.get("ended") is None and alive(facts, store.home)]
    # A pid alone names no process: machines and containers that share a store have equal ones.
    running = {(facts["pid"], key): facts["name"] for facts in living for key in _keys(facts)}
    planned = {key: facts["name"] for facts in every for key in _keys(facts)}  # by the latest run
    plans = {key: facts["plan"] for facts in living for key in _keys(facts)}
    every_work = {*(store.home / "work").glob("*/*/"), *(store.work(*key) for key in plans)}  # one may not be there yet
    works = [work for work in sorted(every_work) if work.parent.name in NAMES]
    items = [item for work in works if (item := _describe(work, store, running, planned)) is not None]
    at_work = {(item["pid"], item["stage"], item["fingerprint"]) for item in items if item["state"] == "running"}
    for facts in living:  # since its record was read, a waiting process may have got what it waits for
        item = _waiting(facts)
        if item is not None and (item["pid"], item["stage"], item["fingerprint"]) not in at_work:
            items.append(item)
    for item in items:
        if item["state"] == "running" and (key := (item["stage"], item["fingerprint"])) in plans:
            item["run_seconds_left"] = _run_left(plans[key], items, store)
    order = ("running", "waiting", "stopped")
    return sorted(items, key=lambda item: order.index(item["state"]))


def _run_left(plan: list[dict[str, Any]], items: list[dict[str, Any]], store: Store) -> float | None:
    """Seconds that a run still takes, by its plan and the progress of its stages; None if that is unknown."""
    entries = {(entry["stage"], entry["fingerprint"][:PREFIX]): entry for entry in plan}
    states = {(item["stage"], item["fingerprint"]): item for item in items if item["state"] == "running"}
    running: dict[str, float | None] = {}
    finished = set()
    for key, entry in entries.items():
        if key in states:
            item = states[key]
            elapsed = None if item["began"] is None else time.time() - item["began"]
            running[key[0]] = forecasts.stage_left(entry, item["unit"], item["seconds_left"], elapsed)
        elif _published(store, *key):
            finished.add(key[0])
    return forecasts.run_left(plan, running, finished)


def _keys(facts: dict[str, Any]) -> list[Key]:
    """The artifacts that a run's plan refers to; none if the plan cannot be read."""
    try:
        return keys_of(facts)
    except (KeyError, TypeError):
        return []


def _waiting(facts: dict[str, Any]) -> dict[str, Any] | None:
    """The stage of a run that waits for a GPU or for another process; None if it does not wait."""
    if not facts.get("waiting"):
        return None
    stage = facts["waiting"]["stage"]
    return _item(stage, dict(_keys(facts)).get(stage, ""), "waiting", facts["name"], facts["pid"]) | {
        "waits_for": facts["waiting"]["for"]
    }


def _item(stage: str, fingerprint: str, state: str, recipe: str | None, pid: int | None) -> dict[str, Any]:
    figures = dict.fromkeys(FIGURES)
    return {
        "stage": stage,
        "fingerprint": fingerprint,
        "state": state,
        "recipe": recipe,
        "pid": pid,
        **figures,
        "facts": {},
        "saved": None,
        "waits_for": None,
        "run_seconds_left": None,
    }


def _describe(
    work: Path, store: Store, recipes: dict[tuple[int, Key], str], planned: dict[Key, str]
) -> dict[str, Any] | None:
    stage, fingerprint = work.parent.name, work.name
    progress, saved, saved_at = read_facts(work / PROGRESS), read_saved(work), _written(work / SAVED)
    if saved_at is None:
        saved = None
    running = held(store.lock_path(stage, fingerprint))
    done = _published(store, stage, fingerprint) and not (work / REQUEST).is_file()
    if not running and (saved is None or done):
        return None  # its process died before it saved anything, or just after it had published
    reporting = progress.pop("pid", None)  # of several ranks the first
    pid = read_facts(store.lock_path(stage, fingerprint)).get("pid", reporting) if running else None
    key = stage, fingerprint
    recipe = planned.get(key) if pid is None else recipes.get((pid, key), planned.get(key))
    item = _item(stage, fingerprint, "running" if running else "stopped", recipe, pid)
    progress.pop("stage", None)
    for name in FIGURES:
        item[name] = progress.pop(name, None)
    if not running and saved is not None:
        item |= {"done": saved.done, "total": saved.total, "unit": saved.unit, "rate": None, "seconds_left": None}
    item["facts"] = progress
    if saved is not None:
        item["saved"] = {"done": saved.done, "total": saved.total, "unit": saved.unit, "time": saved_at}
    return item


def _published(store: Store, stage: str, fingerprint: str) -> bool:
    return any((store.home / "artifacts" / stage).glob(f"*-{fingerprint}"))


def _written(path: Path) -> float | None:
    """When a file was written; None where its stage has just ended and taken it away."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None
