"""The longest pairs are left out, and only those; the others are trained on once in an epoch."""

import numpy as np
import pytest
import torch

from pipeline.couplings import Banked
from pipeline.data.examples import Examples
from pipeline.flow_matching.paths import LINEAR
from pipeline.flow_matching.times import Uniform
from pipeline.outputs import results
from pipeline.training import truncated
from pipeline.training.flow_batches import FlowBatches
from pipeline.training.truncated import Truncated, load_retained, truncation, without_longest
from storage.bank import Bank, BankFacts, BankWriter
from tests.pipeline.jobs import job

SHAPE = (1, 2, 2)


def bank_of(folder, z: np.ndarray, x: np.ndarray | None, rows: int) -> Bank:
    """z and x (pairs, ...) as a bank, in shards of 8."""
    facts = BankFacts(kind="generated", rows=rows, draws=len(z) // rows, shape=SHAPE, dtype="float32", shard=8, seed=0,
                      producer="test")  # fmt: skip
    writer = BankWriter(folder / "bank", facts, ("z",) if x is None else ("z", "x"))
    for index, start, stop in writer.shards:
        writer.write(index, z=z[start:stop], **({} if x is None else {"x": x[start:stop]}))
    writer.finish()
    return Bank.open(folder / "bank")


def pairs(distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """z and x at these distances in random directions."""
    random = np.random.default_rng(0)
    x, way = random.standard_normal((2, len(distance), *SHAPE))
    way /= np.sqrt(np.square(way).reshape(len(way), -1).sum(1))[:, None, None, None]
    return (x + distance[:, None, None, None] * way).astype(np.float32), x.astype(np.float32)


@pytest.fixture(autouse=True)
def _small_reads(monkeypatch):
    monkeypatch.setattr(truncated, "READ_BYTES", 32 * 7)  # several, which end within shards


def test_exactly_the_longest_are_left_out(tmp_path):
    distance = np.random.default_rng(1).permutation(40) + 1.0
    bank = bank_of(tmp_path, *pairs(distance), rows=40)
    task = job(tmp_path / "work")
    retained = without_longest(task, bank, 0.1)
    assert retained.tolist() == np.flatnonzero(distance <= 36).tolist()
    np.testing.assert_array_equal(load_retained(task.out / "retained.safetensors"), retained)
    assert without_longest(job(tmp_path / "other"), bank, 0.0).tolist() == list(range(40))


def test_a_pair_stays_whatever_the_share(tmp_path):
    bank = bank_of(tmp_path, *pairs(np.arange(10) + 1.0), rows=10)
    assert without_longest(job(tmp_path / "work"), bank, 0.999).tolist() == [0]


def test_of_equal_distances_the_first_go(tmp_path):
    z, x = np.ones((10, *SHAPE), np.float32), np.zeros((10, *SHAPE), np.float32)
    assert without_longest(job(tmp_path / "work"), bank_of(tmp_path, z, x, 10), 0.3).tolist() == list(range(3, 10))


def test_a_path_goes_as_a_whole(tmp_path):
    """Of paths in 3 intervals the distance of the ends counts, however long a part is."""
    ends = np.array([5.0, 1.0, 3.0, 4.0, 2.0])
    z, x = np.zeros((2, 15, *SHAPE), np.float32)
    z[2::3, 0, 0, 0] = ends  # the noise of each path is the z of its last interval, the image the x of the first
    z[3, 0, 0, 0] = 100.0
    retained = without_longest(job(tmp_path / "work"), bank_of(tmp_path, z, x, 15), 0.4, intervals=3)
    assert retained.tolist() == [3, 4, 5, 6, 7, 8, 12, 13, 14]


def test_images_outside_of_the_bank_are_measured_too_and_each_pair_is_met_once_in_an_epoch(tmp_path):
    distance = np.random.default_rng(2).permutation(30) + 1.0
    x = np.random.default_rng(3).standard_normal((10, *SHAPE)).astype(np.float32)
    z, start = pairs(distance)
    z = z - start + np.tile(x, (3, 1, 1, 1))  # three draws for each of ten images
    bank = bank_of(tmp_path, z, None, rows=10)
    retained = without_longest(job(tmp_path / "work"), bank, 0.2, lambda rows: x[rows])
    assert retained.tolist() == np.flatnonzero(distance <= 24).tolist()

    labels = np.arange(10) % 2
    left = Truncated(Examples(x, labels), Banked(bank.load()["z"]), retained)
    batches = FlowBatches(left, left, Uniform(), LINEAR, 0.0, 1, 8)
    epoch = [batches(step) for step in range(3)]
    met = {pair.numpy().tobytes() for batch in epoch for pair in torch.cat([batch.x, batch.z], 1)}
    assert met == {np.concatenate([x[flat % 10], z[flat]]).tobytes() for flat in retained.tolist()}
    for batch in epoch:
        for image, label in zip(batch.x, batch.labels, strict=True):
            assert labels[np.flatnonzero((x == image.numpy()).all((1, 2, 3)))[0]] == label


def test_the_account_counts_by_class():
    labels = np.array([0, 0, 1, 1, 1, 2])
    assert truncation(6, np.array([0, 3, 5]), labels) == results.Truncation(
        pairs=6, dropped=3, dropped_by_class=(1, 2, 0)
    )
    assert truncation(6, np.array([0, 3, 5]), None).dropped_by_class is None
