"""Several `flowctl run` in child processes: Prefect can be configured only once per process.

They run one after another, or one on each GPU. The locks of the store let the first of them run a shared stage, for
which the others wait. Each gets its recipe in a file, so that all run what was planned, even if the user edits theirs.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import yaml

import flowctl
from flows.orchestration.child_signals import passing_on
from flows.session.commands import as_typed
from flows.session.display import say
from pipeline.engine.provenance import COMMAND
from pipeline.recipe.recipe import Recipe
from pipeline.recipe.sections import Compute
from storage.errors import StageFailed
from storage.store import RECIPES, Store

PROGRAM = (sys.executable, flowctl.__file__)  # by file: the current directory may hold another package `flows`
POLL_SECONDS = 0.05
LAST_WORDS_SECONDS = 5.0  # for which the output of an ended child is waited: a process that it left may hold it open
Environment = Mapping[str, str]


class ChildFailed(StageFailed):
    """A `flowctl run` in a child process failed or was stopped."""

    retryable = True


@dataclass(frozen=True)
class Child:
    """A run of a recipe in a process. The user gets it by `source`, its name or file, after `changes`."""

    recipe: Recipe = field(compare=False)
    source: str
    changes: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.recipe.name

    @property
    def command(self) -> str:
        """The command that the user would type."""
        return f"flowctl run {as_typed(self.source, self.changes)} {shlex.join(self.options)}".rstrip()

    def prepared(self, file: Path) -> list[str]:
        """Write the recipe to `file`; the words of the command line after `flowctl` that run it."""
        file.parent.mkdir(exist_ok=True)  # `flowctl gc` may have taken it for a leftover
        file.write_text(yaml.safe_dump(self.recipe.model_dump(mode="json"), allow_unicode=True), "utf-8")
        # The child takes its GPUs from Slurm, as the parent does, and a change comes before that.
        compute = [word for change in self.changes if change.startswith("compute") for word in ("--set", change)]
        return ["run", str(file), *compute, *self.options]


def places(compute: Compute, children: int, jobs: int | None = None) -> list[Environment]:
    """What to add to the environment of each of the children that run at the same time: one for each GPU, else one;
    `jobs` if given. GPUs are assigned in turn, and the CPUs are shared."""
    if 1 in (children, jobs):
        return [{}]
    gpus: list[str] = []
    if compute.device in ("auto", "cuda") and compute.nproc == 1:
        import torch

        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        count = torch.cuda.device_count()
        gpus = visible.split(",")[:count] if visible else [str(index) for index in range(count)]
    number = min(children, jobs or max(1, len(gpus)))
    if number == 1:
        return [{}]
    share = {"OMP_NUM_THREADS": str(max(1, compute.cores // number))}
    return [share | ({"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {}) for i in range(number)]


def run_children(
    children: Sequence[Child],
    tell: Callable[[str], None],
    places: Sequence[Environment] = ({},),
    keep_going: bool = False,
) -> dict[Child, int]:
    """Run all, as many at once as there are places; the exit codes of those that were started. After a signal, and
    without `keep_going` after a failure, no further one is started.

    Signals are passed on to the children, and this process waits until all of them have saved. What they print goes to
    stderr, because stdout is for the result of all of them.
    """
    store = Store()
    store.prepare()
    # Of the recipes. In the store, for there may be no other place; `flowctl gc` finds leftovers by this name.
    folder = tempfile.TemporaryDirectory(prefix=RECIPES, dir=store.home / "work")
    running: dict[int, tuple[Child, subprocess.Popen]] = {}  # by place
    relays: list[threading.Thread] = []
    codes: dict[Child, int] = {}
    ahead = list(children)
    with folder, passing_on(lambda: [process for _, process in list(running.values())]) as heard:
        try:
            while running or ahead:
                for place, (child, process) in list(running.items()):
                    if process.poll() is not None:
                        codes[child] = process.returncode
                        del running[place]
                if heard.stop or (not keep_going and any(codes.values())):
                    ahead.clear()
                for place in range(len(places)):
                    if ahead and place not in running and not heard.stop:
                        child = ahead.pop(0)
                        number = len(children) - len(ahead)
                        tell(f"[{number} of {len(children)}] {child.command}")
                        file = Path(folder.name, f"recipe-{number}.yaml")
                        process = _start(child, file, places[place], heard.group, alone=len(places) == 1)
                        running[place] = child, process
                        if process.stdout is not None:
                            relays.append(_relay(process.stdout, child.name))
                        if heard.stop and process not in heard.reached:  # the signal came while the child was started
                            process.send_signal(signal.SIGTERM)
                time.sleep(POLL_SECONDS if running else 0)
            for relay in relays:  # last words lie in a pipe after the end, and say why
                relay.join(LAST_WORDS_SECONDS)
        except BaseException:  # as a full disk for the next child's recipe: those that run save and end too
            for _, process in running.values():
                process.terminate()
            for _, process in running.values():
                process.wait()
            raise
    return codes


def _start(child: Child, file: Path, place: Environment, group: int | None, alone: bool) -> subprocess.Popen:
    """Start a child in this process group. Where several run, its output is a pipe."""
    command, environment = [*PROGRAM, *child.prepared(file)], {**os.environ, **place, COMMAND: child.command}
    if alone:
        return subprocess.Popen(command, stdout=2, env=environment, process_group=group)
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        process_group=group,
        text=True,
        errors="replace",
    )


def _relay(stream: IO[str], name: str) -> threading.Thread:
    """A thread that says each line of a child after the child's name, until the last."""

    def pass_on() -> None:
        with stream:
            for line in stream:
                say(f"{name}: {line.rstrip()}")

    thread = threading.Thread(target=pass_on, daemon=True)
    thread.start()
    return thread
