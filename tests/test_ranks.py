"""Several ranks do what one does: the same bytes in banks, the same network to rounding, and one may die."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from pipeline.engine import elastic
from pipeline.engine.dag import build
from pipeline.engine.execute import execute
from pipeline.outputs import networks
from pipeline.recipe.load import load
from pipeline.recipe.sections import Compute
from pipeline.runtime.job import StopSignal
from storage.errors import BusyError, Interrupted, StageFailed
from storage.store import Store
from tests import forked_ranks
from tests.shared import HANGS
from tests.tiny import TINY

ALONE, TWO = Compute(device="cpu", threads=1), Compute(device="cpu", threads=1, nproc=2)
SETTINGS = [
    *TINY,
    "bank.shard=64",
    "bank.whiten=true",
    "student.network.dropout=0",
    "student.quality={points: 2, samples: 100, solver: euler, nfe: 2}",
    "reference.extractor=pixels",
]


def nodes(*more: str):
    return build(load("nfm-digits", [*SETTINGS, *more]))


def make(store: Store, upto: str, compute: Compute, *more: str, **options):
    """Everything up to a stage; its outcome."""
    for node in nodes(*more).values():
        inputs = {role: store.find(role, source.fingerprint) for role, source in node.inputs.items()}
        last = node.name == upto
        outcome = execute(node, inputs, store, compute, **(options if last else {}))
        if last:
            return outcome


def remade(store: Store, stage: str, compute: Compute, *more: str, **options):
    """The stage again, of the same inputs."""
    node = nodes(*more)[stage]
    shutil.rmtree(store.find(stage, node.fingerprint).root)
    inputs = {role: store.find(role, source.fingerprint) for role, source in node.inputs.items()}
    return execute(node, inputs, store, compute, **options).artifact


def digests(artifact) -> dict[str, str]:
    return {record.path: record.sha256 for record in artifact.files}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """All stages by one rank."""
    store = Store(tmp_path_factory.mktemp("store"))
    store.prepare()
    make(store, "evaluation", ALONE)
    return store


@pytest.fixture
def forks(monkeypatch):
    """Ranks that start at once."""
    monkeypatch.setattr(elastic, "agent", forked_ranks.agent)


FOREIGN = "raise ImportError('a package of another project was imported')"


def among_foreign_packages(tmp_path, monkeypatch):
    """In a directory, and with a path, of packages that are not to be imported; most repositories have a `models`."""
    for place in ("here", "there"):
        for name in ("models", "pipeline", "storage", "flows", "torch"):
            if (place, name) == ("there", "torch"):
                continue  # on PYTHONPATH another torch is what the user asked for
            package = tmp_path / place / name
            package.mkdir(parents=True)
            (package / "__init__.py").write_text(FOREIGN)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "there"))


@pytest.mark.parametrize("stage", ["bank", "pairs"])
def test_ranks_write_the_bytes_of_one(store, forks, stage):
    alone = store.find(stage, nodes()[stage].fingerprint)
    assert digests(remade(store, stage, TWO)) == digests(alone)


def test_two_ranks_measure_the_same(store, forks):
    alone = store.find("evaluation", nodes()["evaluation"].fingerprint).metrics["scores"]
    two = remade(store, "evaluation", TWO).metrics["scores"]
    assert [score["value"] for score in two] == pytest.approx([score["value"] for score in alone], rel=1e-6)
    assert [score["nfe"] for score in two] == [score["nfe"] for score in alone]


def test_two_ranks_train_the_network_of_one_and_score_it_meanwhile(store, forks):
    alone = store.find("student", nodes()["student"].fingerprint)
    before = networks.load_network(alone).state_dict()
    curve = alone.path("history.jsonl").read_text().splitlines()
    two = remade(store, "student", TWO)
    after = networks.load_network(two).state_dict()
    assert any(not torch.equal(after[name], before[name]) for name in before)  # it was not simply found
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=1e-3, atol=1e-4)
    curves = [
        [line["fd/half-life-128"] for line in map(json.loads, lines) if "fd/half-life-128" in line]
        for lines in (curve, two.path("history.jsonl").read_text().splitlines())
    ]
    assert len(curves[0]) == 2 and curves[1] == pytest.approx(curves[0], rel=1e-2)
    assert min(curves[1]) == two.metrics["quality"]["value"]


@pytest.mark.slow
def test_two_ranks_train_the_average_velocities_of_one(store, forks):
    settings = ("student.objective={kind: meanflow, interval_share: 0.6}",)
    one = make(store, "student", ALONE, *settings).artifact
    alone, history = networks.load_network(one).state_dict(), one.path("history.jsonl").read_text()
    other = remade(store, "student", TWO, *settings)
    two = networks.load_network(other).state_dict()
    assert any(not torch.equal(two[name], alone[name]) for name in alone)
    for name, value in alone.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4)
    lines = [json.loads(text.splitlines()[-1]) for text in (history, other.path("history.jsonl").read_text())]
    for name in ("error_instant", "error_interval"):
        assert lines[0][name] == pytest.approx(lines[1][name], rel=1e-3)


LOOM = (
    "student.coupling={kind: loom, noises_per_image: 2}",
    "teacher=null",
    "bank=null",
    "pairs=null",
    "onestep=null",
    "evaluation.onestep=[]",
)


def test_two_ranks_refine_one_assignment(store, forks):
    alone = make(store, "student", ALONE, *LOOM).artifact
    epochs, weights = alone.path("epochs.json").read_bytes(), networks.load_network(alone).state_dict()
    two = remade(store, "student", TWO, *LOOM)
    assert two.path("epochs.json").read_bytes() == epochs
    assert b'"reassigned": 0.0' not in epochs.splitlines()[0]
    for name, value in networks.load_network(two).state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=1e-3, atol=1e-4)


def children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout.split()
    return [int(child) for child in found]


def kill_once_saved(work: Path, killed: list[int], whom=lambda agent: children(agent)[-1]) -> None:
    """kill -9 one of the ranks of this process's agent, or another, as soon as the stage has saved something."""
    deadline = time.monotonic() + HANGS
    while time.monotonic() < deadline:
        time.sleep(0.01)
        if not list(work.rglob("saved.json")):  # first: a small stage is over in a second, and `ps` takes its time
            continue
        agents = [child for child in children(os.getpid()) if children(child)]
        if agents:
            killed.append(whom(agents[0]))
            os.kill(killed[0], signal.SIGKILL)
            return


def digests_with_a_killed_rank(store, compute, *overrides):
    """Of the student, made again while one of its ranks is killed after the first checkpoint."""
    killed: list[int] = []
    killer = threading.Thread(target=kill_once_saved, args=(store.home / "work" / "student", killed), daemon=True)
    killer.start()
    files = digests(remade(store, "student", compute, *overrides))
    killer.join()
    assert killed
    return files


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])  # three add up in an order that two cannot have
def test_a_rank_that_dies_is_restarted_and_the_stage_goes_on_to_the_same_bits(store, ranks):
    longer = (f"student.training.images={ranks * 1600}", f"student.training.batch={ranks * 32}")
    several = TWO.model_copy(update={"nproc": ranks})
    quick = several.model_copy(update={"checkpoint_seconds": 0.05})
    undisturbed = digests(make(store, "student", several, *longer).artifact)
    assert digests_with_a_killed_rank(store, quick, *longer) == undisturbed


@pytest.mark.slow
def test_ranks_that_stream_the_bank_train_the_network_of_a_resident_one(store, tmp_path, monkeypatch):
    """Whatever the directory and the path. Each reads its part of a batch; one is killed on the way."""
    longer = ("student.training.images=3200", "student.training.batch=64", "student.coupling={kind: nfm, soften: 0.2}")
    with monkeypatch.context() as patch:
        patch.setattr(elastic, "agent", forked_ranks.agent)
        resident = digests(make(store, "student", TWO, *longer).artifact)
    streaming = TWO.model_copy(update={"bank_memory_share": 1e-9, "checkpoint_seconds": 0.05})
    among_foreign_packages(tmp_path, monkeypatch)
    assert digests_with_a_killed_rank(store, streaming, *longer) == resident


def test_a_torchrun_that_is_killed_leaves_no_rank_behind(store):
    """They are in sessions of their own, so that only they can notice."""
    more = ("student.training.images=640000", "student.seed=6")  # they would train for minutes
    work, killed = store.work("student", nodes(*more)["student"].fingerprint), []
    killer = threading.Thread(target=kill_once_saved, args=(work, killed, lambda agent: agent), daemon=True)
    killer.start()
    with pytest.raises(elastic.RanksDied, match="SIGKILL"):
        make(store, "student", TWO.model_copy(update={"checkpoint_seconds": 0.05}), *more)
    killer.join()
    assert killed
    elastic.await_orphans(work, StopSignal(), patience=10)


@pytest.mark.parametrize(
    ("before", "cause"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", r"signal 9 \(SIGKILL\)"),
        ("import types, sys; sys.modules['storage'] = types.ModuleType('storage')", "`storage` must be flowctl's"),
        ("import sys; sys.modules['torch'] = None", "'torch' is not a package"),
    ],
    ids=["killed", "foreign package", "exception"],
)
def test_the_error_names_why_the_ranks_died(store, tmp_path, monkeypatch, before, cause):
    """Python runs this first in each process; only ranks have a RANK."""
    (tmp_path / "sitecustomize.py").write_text(f"import os\nif 'RANK' in os.environ:\n    {before}\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setattr(elastic, "RESTARTS", 0)
    with pytest.raises(elastic.RanksDied, match=cause):
        make(store, "student", TWO, "student.seed=7")


def test_an_error_of_the_ranks_is_the_error_of_the_stage_and_is_not_tried_again(store, monkeypatch):
    ended = []

    @contextlib.contextmanager
    def agent(*given):
        with forked_ranks.agent(*given) as ranks:
            yield ranks
        ended.append(ranks.returncode)

    monkeypatch.setattr(elastic, "agent", agent)
    with pytest.raises(StageFailed, match=r"the loss is (nan|inf) at step"):
        make(store, "student", TWO, "student.training.lr=1e30", "student.training.clip=1e30")
    assert ended == [0]  # after any other code torchrun starts them again


def test_a_stop_reaches_the_ranks_which_save_first(store, forks):
    stop = StopSignal()
    stop.request("Ctrl-C")
    more = ("student.training.images=64000", "student.seed=5")
    with pytest.raises(Interrupted, match=r"Stopped in stage student \(Ctrl-C\)"):
        make(store, "student", TWO, *more, stop=stop)
    work = store.work("student", nodes(*more)["student"].fingerprint)
    assert list((work / "checkpoints").glob("step-*.safetensors"))
    assert not (work / elastic.OUTCOME).exists() or "Interrupted" in (work / elastic.OUTCOME).read_text()


def test_ranks_leave_with_their_launcher_and_the_next_one_waits_for_them(tmp_path):
    """A launcher that is killed cannot end its ranks; they notice by themselves."""
    code = (
        "import fcntl, os, sys, time; from pathlib import Path; from pipeline.engine.worker import _leave_with\n"
        "stream = open(sys.argv[1], 'a'); fcntl.flock(stream, fcntl.LOCK_SH)\n"
        "_leave_with(int(sys.argv[2])); print('up', flush=True); time.sleep(60)"
    )
    launcher = subprocess.Popen(["sleep", "60"])
    orphan = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / elastic.ALIVE), str(launcher.pid)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert orphan.stdout.readline() == "up\n"
    with pytest.raises(BusyError):
        elastic.await_orphans(tmp_path, StopSignal(), patience=0.3)
    asked = StopSignal()
    asked.request("Ctrl-C")
    with pytest.raises(Interrupted, match="Ctrl-C"):
        elastic.await_orphans(tmp_path, asked)
    launcher.kill()
    launcher.wait()
    elastic.await_orphans(tmp_path, StopSignal())
    assert orphan.wait(10) == 1
    elastic.await_orphans(tmp_path / "nothing-there", StopSignal())


def test_a_rank_whose_torchrun_is_gone_already_does_not_begin(tmp_path):
    """It was handed to another parent before it could see whose child it is."""
    command = [sys.executable, str(elastic.WORKER), str(tmp_path)]
    environment = {**os.environ, elastic.LAUNCHER: str(os.getpid())}
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    assert not list(tmp_path.iterdir())


def test_errors_travel_with_their_words():
    from storage.errors import DamageError, InputError

    for error in (InputError("A rule", 5, "Do this"), DamageError("a file", "torn", "Run again"), StageFailed("no")):
        back = elastic.error_from(elastic.outcome_of(error))
        assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))
    full = elastic.error_from(elastic.outcome_of(OSError(28, "No space left on device", "x.bin")))
    assert (full.errno, full.filename) == (28, "x.bin")
    for error in (MemoryError("16 GB"), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")):
        back = elastic.error_from(elastic.outcome_of(error))  # a rank that starts again would need as much
        assert type(back) is MemoryError and str(back) == str(error)
    assert elastic.outcome_of(RuntimeError("CUDA error")) is None  # a restart may cure it


def test_an_error_of_another_module_travels_as_the_class_that_it_is_based_on():
    from pipeline.flow_matching.solvers import NotFinite

    error = NotFinite(3, 0.5)
    back = elastic.error_from(elastic.outcome_of(error))
    assert (type(back), str(back), vars(back)) == (StageFailed, str(error), {"step": 3, "time": 0.5})
