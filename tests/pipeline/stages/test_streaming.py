"""A bank that does not fit the memory is read from the disk, and every student is the one of the resident bank."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from flows.session.session import needed_for
from pipeline.engine.dag import build
from pipeline.engine.execute import execute
from pipeline.recipe.load import load
from pipeline.recipe.sections import Compute
from pipeline.runtime.job import StopSignal
from pipeline.training.flow_batches import FlowBatches
from storage.bank import Streamed
from storage.errors import Interrupted
from storage.store import Store
from tests.pipeline.stages.big_bank import ROWS, SHAPE, weights, write_bank
from tests.tiny import TINY

LESS = ["student.training.images=384", "onestep.training.images=384", "bank.dtype=float16"]
RESIDENT = Compute(device="cpu", threads=1)
STREAMING = RESIDENT.model_copy(update={"bank_memory_share": 1e-9})
ROUND = (
    "reflow=[{pairs: {count: 128, nfe: 2, shard: 64, drop_longest: 0.2}, mix: {forward: 0.3}, "
    "training: {images: 384, batch: 64, lr: 1.0e-3, ema: 128}}]"
)


@pytest.fixture(scope="module")
def store(home):
    store = Store(home)
    store.prepare()
    return store


def digests(artifact):
    return {record.path: record.sha256 for record in artifact.files if record.path.endswith(".safetensors")}


def trained(store: Store, stage: str, compute: Compute, overrides: list[str], **options):
    """What the stage leaves and reports, run again in any case; those before it run where they are not there yet."""
    for name, node in needed_for(stage, build(load("nfm-digits", [*TINY, *LESS, *overrides]))).items():
        inputs = {role: store.find(role, source.fingerprint) for role, source in node.inputs.items()}
        if name == stage:
            if (artifact := store.find(name, node.fingerprint)) is not None:
                shutil.rmtree(artifact.root)
            outcome = execute(node, inputs, store, compute, **options)
            assert outcome.action in ("run", "resumed")
            result = digests(outcome.artifact), outcome.artifact.metrics
            shutil.rmtree(outcome.artifact.root)
            return result
        execute(node, inputs, store, RESIDENT)


CASES = {
    "nfm": ("student", ["student.coupling={kind: nfm, independent: 0.2, soften: 0.4}"]),
    "nfm truncated": ("student", ["student.coupling={kind: nfm, drop_longest: 0.1}"]),
    "loom": ("student", ["student.coupling={kind: loom, start: bank}"]),
    "reflow": ("reflow-1", [ROUND]),
    "one step": ("onestep", ["pairs.drop_longest=0.1"]),
    "two steps": ("onestep", ["onestep.steps=2", "evaluation.onestep=[{nfe: [2]}]", "pairs.drop_longest=0.1"]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_streamed_bank_trains_the_same_student_also_when_it_is_stopped(store, monkeypatch, case):
    stage, overrides = CASES[case]
    resident, _ = trained(store, stage, RESIDENT, overrides)
    reads = []
    get = Streamed.__getitem__
    monkeypatch.setattr(Streamed, "__getitem__", lambda array, index: reads.append(1) or get(array, index))
    stop = StopSignal()
    stop.request("test")
    quick = STREAMING.model_copy(update={"checkpoint_seconds": 1e-3})
    with pytest.raises(Interrupted):
        trained(store, stage, quick, overrides, stop=stop)
    assert trained(store, stage, STREAMING, overrides)[0] == resident
    assert len(reads) >= 6  # one at least for each step


def test_pairs_say_what_is_left_out(store):
    """Of paths, where each has several intervals."""
    files, metrics = trained(store, "pairs", RESIDENT, CASES["two steps"][1])
    left_out = metrics["truncation"]
    assert (left_out["pairs"], left_out["dropped"]) == (128, 13) and sum(left_out["dropped_by_class"]) == 13
    assert list(files) == ["retained.safetensors"]


def test_a_streamed_bank_is_read_ahead(store, monkeypatch):
    """When a step is computed, the batches of the next ones are under way."""
    seen, call = [], FlowBatches.__call__
    monkeypatch.setattr(FlowBatches, "__call__", lambda self, step: seen.append(self.ahead) or call(self, step))
    trained(store, "student", STREAMING, [])
    assert set(seen) == {4}


@pytest.mark.slow
def test_training_takes_less_memory_than_the_bank(tmp_path):
    """Within an address space that the bank itself does not fit, to the weights of the resident bank."""
    bank = write_bank(tmp_path / "bank")
    size = bank.facts.pairs * bank.row_bytes["z"]
    command = [sys.executable, "-m", "tests.pipeline.stages.big_bank", str(bank.path), str(size // 2)]
    child = subprocess.run(command, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    answer = json.loads(child.stdout)
    assert answer["resident"] == "MemoryError"
    assert answer["grown"] < size // 2
    z = bank.load()["z"]
    assert answer["streamed"] == weights(z, tmp_path / "work")
    assert z.shape[1:] == (ROWS, *SHAPE) and not np.array_equal(z[0], z[1])
