"""What is unfinished in a store, by any process: from work directories, locks and run records alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flows.session.runs import alive, records
from pipeline.engine.dag import NAMES
from pipeline.engine.rerun import REQUEST
from pipeline.runtime.job import PROGRESS, SAVED, read_saved
from storage.locks import held
from storage.store import PREFIX, Key, Store


def unfinished(store: Store) -> list[dict[str, Any]]:
    """One entry per work directory, running ones first. Values that are not known are None."""
    known = list(records(store.home))
    running = {
        facts["pid"]: facts["name"] for facts in known if facts.get("ended") is None and alive(facts, store.home)
    }
    planned = {key: facts["name"] for facts in known for key in _keys(facts)}  # by whoever wanted it last
    works = [work for work in sorted((store.home / "work").glob("*/*/")) if work.parent.name in NAMES]
    found = [_describe(work, store, running, planned) for work in works]
    return sorted((item for item in found if item is not None), key=lambda item: item["state"] != "running")


def _keys(facts: dict[str, Any]) -> list[Key]:
    """What a run's record plans to make or to use; nothing where it cannot be read."""
    try:
        return [(step["stage"], step["fingerprint"][:PREFIX]) for step in facts["plan"]]
    except (KeyError, TypeError):
        return []


def _describe(work: Path, store: Store, recipes: dict[int, str], planned: dict[Key, str]) -> dict[str, Any] | None:
    stage, fingerprint = work.parent.name, work.name
    progress, saved = _read(work / PROGRESS), read_saved(work)
    running = held(store.lock_path(stage, fingerprint))
    done = _published(store, stage, fingerprint) and not (work / REQUEST).is_file()
    if not running and (saved is None or done):
        return None  # it died before it saved anything, or just after it had published: there is nothing to tell
    pid = progress.pop("pid", None) if running else None
    told = {name: progress.pop(name, None) for name in ("done", "total", "unit", "rate", "seconds_left", "time")}
    if not running:
        told |= {"done": saved.done, "total": saved.total, "unit": saved.unit, "rate": None, "seconds_left": None}
    progress.pop("stage", None), progress.pop("pid", None)
    return {
        "stage": stage,
        "fingerprint": fingerprint,
        "state": "running" if running else "stopped",
        "recipe": recipes.get(pid) or planned.get((stage, fingerprint)),
        "pid": pid,
        **told,
        "facts": progress,
        "saved": None
        if saved is None
        else {"done": saved.done, "total": saved.total, "unit": saved.unit, "time": (work / SAVED).stat().st_mtime},
    }


def _published(store: Store, stage: str, fingerprint: str) -> bool:
    return any((store.home / "artifacts" / stage).glob(f"*-{fingerprint}"))


def _read(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}
