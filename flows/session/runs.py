"""Records of runs, `<home>/runs/<id>.json`: who runs what, since when, and how it ended; beside it the run's journal.

While the run lasts it holds a lock, `<id>.lock`. A record without an end whose lock nobody holds tells of a run that
was killed: its flow run still says Running.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from flows.session.journal import Journal
from storage.atomic import write_json
from storage.locks import held, take

_KNOWN = {"id", "name", "pid", "host", "server", "flow_run"}  # what readers of a record take for granted


class RunRecord:
    """One run of this process. Its `id` is also the tag of its flow run in Prefect, if this process creates that."""

    def __init__(self, home: Path, recipe: Mapping[str, Any], plan: list[dict[str, Any]], server: str | None) -> None:
        self.id = f"run-{time.strftime('%Y%m%dT%H%M%S')}-{uuid.uuid4().hex[:6]}"
        self._path = home / "runs" / f"{self.id}.json"
        self._lock = take(_lock(self._path))  # before there is a record: one without a lock is of an older version
        self.journal = Journal(self._path.with_suffix(".jsonl"))
        self.facts: dict[str, Any] = {
            "id": self.id,
            "name": recipe["name"],
            **_me(),
            "server": server,
            "flow_run": None,
            "began": time.time(),
            "ended": None,
            "outcome": None,
            "plan": plan,
            "recipe": recipe,
        }
        self._write()

    def joined(self, flow_run: object) -> None:
        """Prefect has given the run this id."""
        self.facts["flow_run"] = str(flow_run)
        self._write()

    def end(self, outcome: str) -> None:
        """The run is over, well or not: `outcome` says how in one line."""
        self.facts.update(ended=time.time(), outcome=outcome)
        with suppress(OSError):  # a full disk must not hide why the run ended
            self._write()
            _lock(self._path).unlink(missing_ok=True)
        self.release()

    def release(self) -> None:
        """Let go of the lock, as a process does that is killed: if the run has no end yet, it was that."""
        if self._lock is not None:
            self._lock.close()

    def _write(self) -> None:
        write_json(self._path, self.facts)


def records(home: Path) -> Iterator[dict[str, Any]]:
    """All readable records, oldest first."""
    for path in sorted((home / "runs").glob("run-*.json")):
        try:
            facts = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue  # nothing depends on a record but tidiness
        known = isinstance(facts, dict) and facts.keys() >= _KNOWN and isinstance(facts["pid"], int)
        if known and facts["id"] == path.stem:  # by which its lock is found
            yield facts


def alive(facts: Mapping[str, Any], home: Path) -> bool:
    """Whether the record's run, in the store at `home`, still goes on.

    The kernel knows of its lock. Without that the process's id and start must do, which another container with this
    host's name knows nothing of; and a process of another host is taken to live.
    """
    known = locked(home / "runs" / f"{facts['id']}.json")
    if known is not None:
        return known
    if facts.get("host") != socket.gethostname():
        return True
    return facts.get("boot") == _boot() and facts.get("process_start") == _process_start(int(facts.get("pid", 0)))


def locked(record: Path) -> bool | None:
    """Whether a living process holds the lock of a record; None if that has none, as those of older versions."""
    return held(_lock(record)) if _lock(record).exists() else None


def killed(home: Path) -> list[dict[str, Any]]:
    """Records that have no end and whose process is gone."""
    dead = [facts for facts in records(home) if facts.get("ended") is None and not alive(facts, home)]
    # One that was ending while we looked has written its end before it let go of its lock.
    over = {facts["id"] for facts in records(home) if facts.get("ended") is not None} if dead else set()
    return [facts for facts in dead if facts["id"] not in over]


def mark_ended(home: Path, facts: dict[str, Any]) -> None:
    """Write into a killed run's record that it is over."""
    write_json(home / "runs" / f"{facts['id']}.json", {**facts, "ended": time.time(), "outcome": "killed"})
    _lock(home / "runs" / f"{facts['id']}.json").unlink(missing_ok=True)


def _lock(record: Path) -> Path:
    return record.with_suffix(".lock")


def _me() -> dict[str, Any]:
    pid = os.getpid()
    return {"pid": pid, "process_start": _process_start(pid), "host": socket.gethostname(), "boot": _boot()}


def _boot() -> str | None:
    """Which boot of this machine we live in: process ids begin anew with each."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _process_start(pid: int) -> int | None:
    """When a process started, in ticks since boot, since its id may have been given anew; None if it is gone.

    Where there is no /proc, 0 for any process that lives.
    """
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        pass
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)
    except PermissionError:
        return 0  # another user's, but there
    except OSError:
        return None
    return 0
