"""One attempt of the crash harness: a fork that computes the missing artifacts, and how it is ended."""

from __future__ import annotations

import faulthandler
import itertools
import json
import mmap
import os
import signal
import struct
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.crash_recipes import recipe_of
from pipeline.engine.dag import Node
from pipeline.engine.execute import execute
from pipeline.runtime.job import read_saved
from pipeline.training import _clocks
from storage.store import Store

CALLS = ("replace", "rename", "fsync", "unlink", "mkdir", "rmdir", "link")
LONGEST = 900.0  # seconds that an attempt may take


@dataclass(frozen=True)
class Fault:
    """How an attempt ends: SIGKILL at call number `at`, before or after it, or from outside after `later` seconds."""

    kind: str
    at: int
    after: bool = False
    later: float = 0.0


class Shared:
    """Shared memory of child and parent: the current stage, and the number of calls so far."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 16)

    def tell(self, stage: int, calls: int) -> None:
        self._memory[:16] = struct.pack("qq", stage, calls)

    def read(self) -> tuple[int, int]:
        return struct.unpack("qq", self._memory[:16])


class Counted:
    """The calls that change names or force bytes to the disk: counted, noted in a journal, and deadly at a number."""

    def __init__(self, shared: Shared, fault: Fault | None, journal: int) -> None:
        self.shared, self.journal, self.stage = shared, journal, -1
        self.numbers = itertools.count(1)  # one step, whatever the number of threads
        self.fault = fault if fault and fault.kind != "moment" else None
        for name in CALLS:
            setattr(os, name, self._wrapped(name, getattr(os, name)))

    def _wrapped(self, name: str, call: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            number = next(self.numbers)
            self.shared.tell(self.stage, number)
            deadly = self.fault is not None and number == self.fault.at
            if deadly and not self.fault.after:
                os.kill(os.getpid(), signal.SIGKILL)
            fresh = name in ("replace", "rename") and not os.path.lexists(args[1])
            try:
                value = call(*args, **kwargs)
                self._note(name, args, fresh)
                return value
            finally:
                if deadly:
                    os.kill(os.getpid(), signal.SIGKILL)

        return counted

    def _note(self, name: str, args: tuple[Any, ...], fresh: bool) -> None:
        if name == "fsync":
            status = os.fstat(args[0])
            line: list[Any] = ["fsync", status.st_ino, status.st_mtime_ns, status.st_size]
        elif name in ("replace", "rename"):
            line = ["rename", str(args[0]), str(args[1]), fresh]
        else:
            return
        os.write(self.journal, (json.dumps(line) + "\n").encode())


def make_all(home: Path, work: Mapping[str, Node], counted: Counted) -> None:
    """All artifacts that are not there yet."""
    store = Store(home)
    store.prepare()
    with patch.object(_clocks, "TIME_SHARE", 1e9):  # save as often as asked for, whatever it costs
        for number, (name, node) in enumerate(work.items()):
            counted.stage = number
            inputs = {role: store.find(role, source.fingerprint) for role, source in node.inputs.items()}
            execute(node, inputs, store, recipe_of(name.partition(":")[0]).compute)


@dataclass(frozen=True)
class Ended:
    """An attempt that was `killed` in the stage of this number with `saved` work to resume from, or finished."""

    killed: bool
    stage: int
    saved: bool
    calls: int
    seconds: float


def attempt(home: Path, work: Mapping[str, Node], fault: Fault | None) -> Ended:
    """Fork a process that computes the missing artifacts, and end it by the fault.

    Raises RuntimeError where it fails by itself, or hangs.
    """
    shared, journal, log = Shared(), home.with_suffix(".journal"), home.with_suffix(".log")
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(output, 1)
            os.dup2(output, 2)
            faulthandler.register(signal.SIGUSR1)
            make_all(home, work, Counted(shared, fault, os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)))
            home.with_suffix(".modules").write_text("\n".join(sys.modules))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    status, hangs = _wait(child, shared, fault if fault and fault.kind == "moment" else None)
    stage, calls = shared.read()
    if not os.WIFSIGNALED(status):
        if os.WEXITSTATUS(status):
            raise RuntimeError(f"an attempt failed in {list(work)[stage]}: {log.read_text()[-4000:]}")
        return Ended(False, stage, False, calls, time.monotonic() - began)
    if hangs:
        raise RuntimeError(f"an attempt hangs in {list(work)[stage]}: {log.read_text()[-4000:]}")
    node = list(work.values())[max(stage, 0)]
    saved = read_saved(Store(home).work(node.name, node.fingerprint)) is not None
    return Ended(True, max(stage, 0), saved, calls, time.monotonic() - began)


def _wait(child: int, shared: Shared, moment: Fault | None) -> tuple[int, bool]:
    """The child's status once it has ended or was killed, and whether that was because it hangs."""
    deadline = time.monotonic() + LONGEST
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status, False
        if moment is not None and shared.read()[1] >= moment.at:
            time.sleep(moment.later)
            os.kill(child, signal.SIGKILL)
            return os.waitpid(child, 0)[1], False
        time.sleep(0.001)
    os.kill(child, signal.SIGUSR1)  # where it hangs, into its log
    time.sleep(1)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1], True
