"""Kill the real stages again and again, go on each time, and hold the end against a run that nothing disturbed.

    python -m benchmarks.crash                      # writes benchmarks/results/crash.json and docs/reliability.md
    python -m benchmarks.crash --kills 15 --seed 3 --out crash.json

Every stage of three recipes (NFM with its one-step student, LOOM-CFM, semidiscrete transport), tiny, in one store. An
attempt is a process that makes what is not there yet; it is a fork of this one, which has imported torch and done
nothing with it, so that an attempt costs what it computes. It is ended in one of three ways:

    moment    SIGKILL from outside, a random time after a random number of calls
    call      SIGKILL just before or just after a random call of replace, rename, fsync, unlink, mkdir ...
    power     as `call`; then what was not forced to the disk is torn, and renames that were not are undone

Attempts follow until all artifacts are there. Then every file must have the SHA-256 of the undisturbed run. Files that
hold times (scores, report) are compared without them.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib
import itertools
import json
import mmap
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.timing import processor
from pipeline.dag import Node, build
from pipeline.execute import execute
from pipeline.job import read_saved
from pipeline.load import load
from storage.store import Store

RESULTS, DOCS = Path("benchmarks/results/crash.json"), Path("docs/reliability.md")
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->"
KINDS = ("moment", "call", "power")
CALLS = ("replace", "rename", "fsync", "unlink", "mkdir", "rmdir", "link")
OFTEN = 30  # times that a run is disturbed, about
LONGEST = 900.0  # seconds that an attempt may take

STUDENT = ["data.limit=200", "reference.extractor=pixels", "compute.threads=1",
           "compute.device=cpu", "compute.checkpoint_seconds=0.02",
           "student.network.base=8", "student.network.multipliers=[1, 1]", "student.network.head_channels=8",
           "student.network.blocks=1", "student.training.images=1280", "student.training.batch=64",
           "student.training.warmup=64", "student.training.ema=128",
           "student.training.averages=[{width: 0.1}]", "evaluation.samples=64",
           "evaluation.student=[{solver: euler, nfe: [1, 2]}, {solver: heun, nfe: [3]}]", "evaluation.likelihood=null"]
RECIPES = {
    "NFM": ("nfm-digits", [
        *STUDENT, "teacher.width=16", "teacher.blocks=2", "teacher.head_dim=8", "teacher.training.images=2048",
        "teacher.training.batch=64", "teacher.training.warmup=64", "teacher.training.ema=128", "teacher.shown=4",
        "couplings.draws=4", "couplings.shard=64", "pairs.count=512", "pairs.nfe=2", "pairs.shard=64",
        "onestep.training.images=1024", "onestep.training.batch=64", "onestep.training.warmup=64",
        "onestep.training.ema=128", "evaluation.onestep=[{solver: euler, nfe: [1]}]",
        "evaluation.likelihood={images: 4, probes: 2, tolerance: 0.1}"]),
    "LOOM": ("loom-digits", [*STUDENT, "student.coupling={kind: loom, batch: 48, caches: 2}"]),
    "LOOM before": ("loom-digits", [*STUDENT, "student.coupling={kind: loom, refine: before, epochs: 6}"]),
    "semidiscrete": ("sd-digits", [*STUDENT, "potentials.batch=64", "potentials.passes=12"]),
}


def nodes(recipes: Collection[str] = tuple(RECIPES)) -> dict[str, Node]:
    """Every stage once, by `recipe: stage`, each after its inputs."""
    found: dict[str, Node] = {}
    known = set()
    for recipe in recipes:
        base, overrides = RECIPES[recipe]
        for node in build(load(base, overrides)).values():
            if (node.name, node.fingerprint) not in known:
                known.add((node.name, node.fingerprint))
                found[f"{recipe}: {node.name}"] = node
    return found


# -- one attempt -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """How an attempt ends: SIGKILL at call number `at`, before or after it, or from outside so many seconds later."""

    kind: str
    at: int
    after: bool = False
    later: float = 0.0


class Shared:
    """What a child tells its parent while it lives: the stage in hand, and how many calls it has made."""

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
            found = os.fstat(args[0])
            line: list[Any] = ["fsync", found.st_ino, found.st_mtime_ns, found.st_size]
        elif name in ("replace", "rename"):
            line = ["rename", str(args[0]), str(args[1]), fresh]
        else:
            return
        os.write(self.journal, (json.dumps(line) + "\n").encode())


def make_all(home: Path, work: Mapping[str, Node], counted: Counted) -> None:
    """All artifacts that are not there yet."""
    from pipeline.training import _clocks

    _clocks.SHARE = 1e9  # save as often as asked for, whatever it costs
    store, compute = Store(home), load(*RECIPES["NFM"]).compute
    store.prepare()
    for number, node in enumerate(work.values()):
        counted.stage = number
        inputs = {role: store.find(role, source.fingerprint) for role, source in node.inputs.items()}
        execute(node, inputs, store, compute)


@dataclass(frozen=True)
class Ended:
    """An attempt that was `killed` in the stage of this number with `saved` work to go on from, or came to its end."""

    killed: bool
    stage: int
    saved: bool
    calls: int
    seconds: float


def attempt(home: Path, work: Mapping[str, Node], fault: Fault | None) -> Ended:
    """Fork a process that makes what is missing, and end it by the fault.

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


# -- a power cut -------------------------------------------------------------------------------------------------------


def cut_power(home: Path, draw: random.Random) -> int:
    """Do to the store what a power cut may do: lose what was not forced to the disk. How many files and names it was.

    A file counts as safe if an fsync has seen it as it is now. A new name counts as safe once its directory was forced
    to the disk after the rename.
    """
    safe, pending, lost = set(), [], 0
    for text in home.with_suffix(".journal").read_text().splitlines():
        kind, *facts = json.loads(text)
        if kind == "rename":
            pending.append(facts)
        else:
            safe.add(tuple(facts))
            pending = [facts_ for facts_ in pending if _inode(Path(facts_[1]).parent) != facts[0]]
    for source, name, fresh in reversed(pending):
        place = Path(source)
        if fresh and draw.random() < 0.5 and Path(name).exists() and place.parent.is_dir() and not place.exists():
            Path(name).rename(place)
            lost += 1
    for path in sorted(home.rglob("*")):
        found = path.stat()
        if path.is_file() and found.st_size and (found.st_ino, found.st_mtime_ns, found.st_size) not in safe:
            _tear(path, found.st_size, draw)
            lost += 1
    return lost


def _inode(path: Path) -> int:
    return path.stat().st_ino if path.exists() else -1


def _tear(path: Path, size: int, draw: random.Random) -> None:
    """Nothing of it, a part, or a part followed by zeros, as file systems leave it."""
    kept = draw.choice([0, draw.randrange(size)])
    os.truncate(path, kept)
    if draw.random() < 0.5:
        os.truncate(path, size)


# -- the campaign ------------------------------------------------------------------------------------------------------


def fingerprints(home: Path, work: Mapping[str, Node]) -> dict[str, Any]:
    """What must not depend on how often a run was disturbed: SHA-256 of all files, and metrics, without times."""
    found = {}
    for name, node in work.items():
        artifact = Store(home).find(node.name, node.fingerprint)
        problems = artifact.problems()
        if problems:
            raise RuntimeError(f"{name}: {problems}")
        files = {record.path: record.sha256 for record in artifact.files}
        timed = {"evaluation": ("scores.json",), "report": ("report.html", "report.json")}.get(node.name, ())
        metrics = json.loads(json.dumps(artifact.metrics), object_hook=_without_times)
        found[name] = {"files": {path: "" if path in timed else digest for path, digest in files.items()},
                       "metrics": metrics}
    return found


def _unequal(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """The files and metrics that are not the same."""
    files = {**found["files"], **expected["files"]}
    names = [path for path in sorted(files) if found["files"].get(path) != expected["files"].get(path)]
    ours, theirs = found["metrics"], expected["metrics"]
    return names + [f"metric {name} {ours.get(name)!r} for {theirs.get(name)!r}" for name in sorted({**ours, **theirs})
                    if ours.get(name) != theirs.get(name)]


def _without_times(facts: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if key != "seconds"}


@dataclass
class Campaign:
    """What happened: kills by (stage, kind), and those that found work saved to go on from."""

    kills: Counter = field(default_factory=Counter)
    saved: Counter = field(default_factory=Counter)
    lost: int = 0
    runs: int = 0
    unequal: list[str] = field(default_factory=list)


def campaign(work: Mapping[str, Node], kills: int, seed: int, folder: Path) -> Campaign:
    """Disturb whole runs until `kills` kills have been dealt; each run is led to its end and compared."""
    draw, result = random.Random(seed), Campaign()
    whole = attempt(folder / "undisturbed", work, None)
    expected = fingerprints(folder / "undisturbed", work)
    _import_all((folder / "undisturbed.modules").read_text().split())
    while sum(result.kills.values()) < kills:
        home = folder / f"run-{result.runs}"
        for fault in _faults(kills - sum(result.kills.values()), min(0.6 * kills, OFTEN), draw, whole):
            ended = attempt(home, work, fault)
            if not ended.killed:
                break
            stage = list(work)[ended.stage]
            result.kills[stage, fault.kind] += 1
            result.saved[stage, fault.kind] += ended.saved
            if fault.kind == "power":
                result.lost += cut_power(home, draw)
        found = fingerprints(home, work)
        result.unequal += [f"run {result.runs}: {name}: {', '.join(_unequal(found[name], expected[name]))}"
                           for name in work if found[name] != expected[name]]
        result.runs += 1
        shutil.rmtree(home)
        print(f"run {result.runs}: {sum(result.kills.values())} kills so far, {len(result.unequal)} artifacts differ",
              file=sys.stderr, flush=True)
    return result


def _import_all(modules: list[str]) -> None:
    """What the undisturbed run has imported on its way, so that later attempts need not."""
    for name in modules:
        if name not in sys.modules and name != "__main__":
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def _faults(kills: int, often: float, draw: random.Random, whole: Ended) -> Iterator[Fault | None]:
    """About so many faults spread over a run, at most `kills`, then none, so that it ends."""
    for _ in range(kills):
        at = 1 + int(draw.expovariate(often) * whole.calls)
        yield Fault(draw.choice(KINDS), at, draw.random() < 0.5, draw.random() * 3 * whole.seconds / whole.calls)
    yield None


def table(result: Mapping[str, Any]) -> str:
    """The campaign as Markdown."""
    kinds = " | ".join(KINDS)
    lines = [f"| stage | {kinds} | all | with work saved |", "|---|" + "---:|" * (len(KINDS) + 2)]
    for stage, row in result["stages"].items():
        counts = " | ".join(str(row["kills"].get(kind, 0)) for kind in KINDS)
        lines.append(f"| {stage} | {counts} | {sum(row['kills'].values())} | {row['saved']} |")
    total = Counter()
    for row in result["stages"].values():
        total.update(row["kills"])
    counts = " | ".join(str(total[kind]) for kind in KINDS)
    saved = sum(row["saved"] for row in result["stages"].values())
    lines.append(f"| **all** | {counts} | **{sum(total.values())}** | {saved} |")
    verdict = ("every file of every artifact had the SHA-256 of the undisturbed run" if not result["unequal"]
               else f"DIFFERENT: {', '.join(result['unequal'])}")
    lines += ["", f"{result['kills']} kills over {result['runs']} runs, seed {result['seed']}: {verdict}. Power cuts "
              f"tore {result['lost']:,} files and names that no fsync had made safe. {result['seconds']:.0f} s, one "
              f"thread, {result['processor']}."]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--out", type=Path, default=None, help="write the result here, and leave the documents alone")
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None,
                        help="where stores lie; in memory, for power cuts are simulated here and fsync takes time")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    asked = parser.parse_args()
    print(f"seed {asked.seed}", file=sys.stderr, flush=True)
    began = time.monotonic()
    work = nodes(asked.recipes)
    for node in work.values():
        node.stage.module()  # torch and all that stages need, before the first fork
    with tempfile.TemporaryDirectory(prefix="crash-", dir=asked.dir) as folder:
        found = campaign(work, asked.kills, asked.seed, Path(folder))
    stages = {name: {"kills": {kind: found.kills[name, kind] for kind in KINDS if found.kills[name, kind]},
                     "saved": sum(found.saved[name, kind] for kind in KINDS)} for name in work}
    result = {"kills": sum(found.kills.values()), "runs": found.runs, "seed": asked.seed, "unequal": found.unequal,
              "lost": found.lost, "seconds": time.monotonic() - began, "processor": processor(), "stages": stages}
    (asked.out or RESULTS).write_text(json.dumps(result, indent=2) + "\n")
    if asked.out is None:
        before, _, after = DOCS.read_text().partition(BEGIN)
        DOCS.write_text(before + BEGIN + table(result) + END + after.partition(END)[2])
    print(table(result))
    return bool(found.unequal)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
