"""Records of runs, `<home>/runs/<id>.json`: which process runs what, since when, and how it ended; next to it the log.

During the run its process holds a lock, `<id>.lock`. A record without an end whose lock is free belongs to a run that
was killed: its flow run still says Running.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from flows.session.journal import Journal
from storage.atomic import write_json
from storage.locks import held, take
from storage.store import PREFIX, Key
from storage.text import without_password

_REQUIRED: dict[str, Any] = {  # fields that readers of a record rely on, and their types
    "id": str,
    "name": str,
    "pid": int,
    "host": str,
    "server": str | None,
    "flow_run": str | None,
    "began": int | float,
}
DAY = 86_400.0  # seconds; clocks of machines that share a store differ by less
BAD_ENDS = ("killed", "stopped", "failed")  # how outcomes begin, of runs that did not reach their end


class RunRecord:
    """One run of this process. Its `id` is also a tag of its flow run in Prefect, if this process creates that.

    `command` is the purpose of the run: "run", "repair" or "smoke test". `reruns` are requests that were pending.
    """

    def __init__(
        self,
        home: Path,
        recipe: Mapping[str, Any],
        plan: list[dict[str, Any]],
        server: str | None,
        command: str = "run",
        reruns: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.id = f"run-{time.strftime('%Y%m%dT%H%M%S')}-{uuid.uuid4().hex[:6]}"
        self._path = home / "runs" / f"{self.id}.json"
        self._lock = take(_lock(self._path))  # before the record exists: one without a lock is of a killed run
        self.journal = Journal(self._path.with_suffix(".jsonl"))
        self.facts: dict[str, Any] = {
            "id": self.id,
            "name": recipe["name"],
            "command": command,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "server": server and without_password(server),
            "flow_run": None,
            "number": 1 + max(map(_number, read_all(home)[0]), default=0),
            "attempt": None,
            "began": time.time(),
            "ended": None,
            "outcome": None,
            "waiting": None,
            "plan": plan,
            "recipe": recipe,
            "reruns": list(reruns),
        }
        try:
            self._write()
        except OSError:
            _lock(self._path).unlink(missing_ok=True)
            raise

    def joined(self, flow_run: object, attempt: int | None = None) -> None:
        """Note the id of the run's flow run in Prefect, and how often that has been begun, this time included."""
        self.facts |= {"flow_run": str(flow_run), "attempt": attempt}
        self._write()

    def expects(self, plan: list[dict[str, Any]]) -> None:
        """Note the plan with the times of its stages, once these are known."""
        self.facts["plan"] = plan
        with suppress(OSError):
            self._write()

    def waits(self, stage: str | None, reason: str = "") -> None:
        """Note that a stage waits, and for what; None when it no longer does."""
        self.facts["waiting"] = None if stage is None else {"stage": stage, "for": reason}
        with suppress(OSError):
            self._write()

    def end(self, outcome: str) -> None:
        """Note that the run is over; `outcome` says in one line how it ended."""
        self.facts.update(ended=time.time(), outcome=outcome)
        with suppress(OSError):  # a full disk must not hide why the run ended
            self._write()
            _lock(self._path).unlink(missing_ok=True)
        self.release()

    def release(self) -> None:
        """Free the lock, as the kernel does when a process is killed."""
        if self._lock is not None:
            self._lock.close()

    def _write(self) -> None:
        write_json(self._path, self.facts)


def records(home: Path) -> Iterator[dict[str, Any]]:
    """All readable records, oldest first by their number: a clock may be set back. Those of before numbers come first,
    by their time: ids have local time, and containers other time zones. One of the future is of a clock that ran ahead,
    and comes before the others: else its name would mean that run until then."""
    latest = time.time() + DAY
    readable, unreadable = read_all(home)
    for path in unreadable:
        _warn(path)
    yield from sorted(readable, key=lambda facts: (_number(facts), facts["began"] if facts["began"] <= latest else 0.0))


def _number(facts: Mapping[str, Any]) -> int:
    """How many runs were recorded until this one; of two that begin together both may have the same."""
    number = facts.get("number")
    return number if isinstance(number, int) else 0


def of_runs(home: Path) -> Iterator[dict[str, Any]]:
    """The records of `flowctl run` among all: none of a repair or a smoke test."""
    return (facts for facts in records(home) if facts.get("command", "run") == "run")


def latest(home: Path) -> dict[str, dict[str, Any]]:
    """By name, the record of the latest `flowctl run`. A repair of an older artifact does not change a name."""
    return {facts["name"]: facts for facts in of_runs(home) if isinstance(facts.get("recipe"), dict)}


def read_all(home: Path) -> tuple[list[dict[str, Any]], list[Path]]:
    """All records in the order of their ids, and the paths of unreadable ones."""
    readable, unreadable = [], []
    for path in sorted((home / "runs").glob("run-*.json")):
        try:
            facts = json.loads(path.read_bytes())
        except FileNotFoundError:
            continue  # removed meanwhile
        except (OSError, ValueError, RecursionError):
            facts = None
        if _is_record(facts) and facts["id"] == path.stem:  # which names its lock
            readable.append(facts)
        else:
            unreadable.append(path)
    return readable, unreadable


def _is_record(facts: Any) -> bool:
    """Whether it has what readers rely on, of the types that they rely on."""
    if not isinstance(facts, dict) or not facts.keys() >= _REQUIRED.keys():
        return False
    lists = [facts.get(name, []) for name in ("plan", "reruns")]
    return all(isinstance(facts[name], kind) for name, kind in _REQUIRED.items()) and all(
        isinstance(each, list) and all(isinstance(item, dict) for item in each) for each in lists
    )


def keys_of(facts: Mapping[str, Any]) -> list[Key]:
    """The artifacts in a record's plan. Raises KeyError or TypeError where that is unreadable."""
    return [(step["stage"], step["fingerprint"][:PREFIX]) for step in facts["plan"]]


@lru_cache
def _warn(path: Path) -> None:
    """Once in a process: a name then means an older run, if this was the latest of its recipe."""
    logging.getLogger("flowctl").warning(
        "The run record %s cannot be read, and is passed over. Delete it if you do not need that run", path
    )


def ended_well(facts: Mapping[str, Any]) -> bool:
    """Whether the run of a record is over, and every stage that it was to run has its result."""
    return facts.get("ended") is not None and not str(facts.get("outcome") or "").startswith(BAD_ENDS)


def alive(facts: Mapping[str, Any], home: Path) -> bool:
    """Whether the process of a run in the store at `home` is alive, on any machine or in any container."""
    return locked(home / "runs" / f"{facts['id']}.json")


def locked(record: Path) -> bool:
    """Whether a living process holds the lock of a record."""
    return held(_lock(record))


def killed(home: Path) -> list[dict[str, Any]]:
    """Records without an end whose process is gone."""
    dead = [facts for facts in records(home) if facts.get("ended") is None and not alive(facts, home)]
    # A run that ended during the check wrote its end before it freed its lock.
    over = {facts["id"] for facts in records(home) if facts.get("ended") is not None} if dead else set()
    return [facts for facts in dead if facts["id"] not in over]


def mark_ended(home: Path, facts: dict[str, Any]) -> None:
    """Note the end of a killed run in its record."""
    write_json(home / "runs" / f"{facts['id']}.json", {**facts, "ended": time.time(), "outcome": "killed"})
    _lock(home / "runs" / f"{facts['id']}.json").unlink(missing_ok=True)


def _lock(record: Path) -> Path:
    return record.with_suffix(".lock")
