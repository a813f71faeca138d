"""A bank as a PyTorch data set: the right couples, every one once, with workers or without, from any batch on."""

import multiprocessing
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pipeline.data.bank_dataset import BankDataset
from storage.bank import BankFacts, BankWriter, layout
from storage.errors import InputError
from storage.imageset import Split, write_imageset

DOCS = Path(__file__).parents[3] / "docs/bank.md"
COUNT, DRAWS = 20, 4
# Workers are forks of a process that has done nothing else: tests before these have left threads in this one.
CLEAN = multiprocessing.get_context("forkserver")
CLEAN.set_forkserver_preload(["torch", "pipeline.data.bank_dataset"])
STREAM = 2 * 8 * 64 * 3  # two windows of three chunks of eight rows


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Twenty images, their mirror images, and four draws of noise for each, whose values are their flat index."""
    home = tmp_path_factory.mktemp("dataset")
    rng = np.random.default_rng(0)
    train = Split(rng.integers(0, 256, (COUNT, 1, 4, 4), dtype=np.uint8), np.arange(COUNT) % 3)
    write_imageset(home / "images.zarr", "made", train, train, classes=["a", "b", "c"])
    facts = {
        "kind": "encoded",
        "rows": 2 * COUNT,
        "draws": DRAWS,
        "shape": (1, 4, 4),
        "dtype": "float32",
        "shard": 32,
        "seed": 0,
        "producer": "0123abcd",
        "flips": True,
    }
    flat = np.arange(2 * COUNT * DRAWS)
    z = np.broadcast_to(flat[:, None, None, None], (len(flat), 1, 4, 4)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "CHUNK_BYTES", 8 * 64)
        for name, changes, arrays in (
            ("bank.zarr", {}, {"z": z}),
            (
                "pairs.zarr",
                {"kind": "generated", "dtype": "float16", "flips": False},
                {"z": z, "x": -z, "labels": flat % 3},
            ),
        ):
            writer = BankWriter(home / name, BankFacts(**facts | changes), tuple(arrays))
            for index, start, stop in writer.shards:
                writer.write(index, **{key: rows[start:stop] for key, rows in arrays.items()})
            writer.finish()
    np.save(home / "train.npy", train.images)
    return home


def batches(dataset, workers=0):
    return list(
        DataLoader(dataset, batch_size=None, num_workers=workers, multiprocessing_context=CLEAN if workers else None)
    )


def flat(found):
    return torch.cat([batch["index"] for batch in found])


def same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("buffer", [2**20, STREAM])
def test_couples_are_an_image_and_its_own_noise(home, buffer):
    found = batches(BankDataset(home / "bank.zarr", 32, home / "images.zarr", epochs=1, buffer_bytes=buffer))
    images = torch.from_numpy(np.load(home / "train.npy")).float() / 127.5 - 1
    assert [len(batch["z"]) for batch in found] == [32] * 5
    assert torch.equal(flat(found).sort().values, torch.arange(2 * COUNT * DRAWS))
    for batch in found:
        assert torch.equal(batch["z"], batch["index"].view(-1, 1, 1, 1).expand(-1, 1, 4, 4).float())
        rows = batch["index"] % (2 * COUNT)
        x = images[rows % COUNT]
        x[rows >= COUNT] = x[rows >= COUNT].flip(-1)
        torch.testing.assert_close(batch["x"], x)
        assert torch.equal(batch["labels"], rows % COUNT % 3)


@pytest.mark.parametrize("buffer", [2**20, 3 * STREAM])
def test_a_bank_of_pairs_needs_nothing_else(home, buffer):
    found = batches(BankDataset(home / "pairs.zarr", 64, epochs=1, buffer_bytes=buffer))
    assert sum(len(batch["z"]) for batch in found) == 2 * COUNT * DRAWS
    for batch in found:
        assert batch["z"].dtype == batch["x"].dtype == torch.float32 and batch["labels"].dtype == torch.int64
        assert torch.equal(batch["x"], -batch["z"]) and torch.equal(batch["labels"], batch["index"] % 3)


def test_noise_alone_where_no_images_are_given(home):
    assert set(next(iter(BankDataset(home / "bank.zarr", 64)))) == {"index", "z"}


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("buffer", [2**20, 3 * STREAM])
@pytest.mark.parametrize("workers", [0, 2, *(pytest.param(count, marks=pytest.mark.slow) for count in (1, 3))])
def test_workers_share_an_epoch_and_it_goes_on_at_any_batch(home, buffer, workers):
    kept = {"bank": home / "bank.zarr", "batch": 16, "seed": 5, "epochs": 2, "buffer_bytes": buffer}
    whole = batches(BankDataset(**kept), workers)
    half = len(whole) // 2
    for epoch in (whole[:half], whole[half:]):
        times = torch.bincount(flat(epoch), minlength=2 * COUNT * DRAWS)
        assert times.min() == 1 and times.sum() - len(times) < max(workers, 1)
    assert not torch.equal(flat(whole[:half]), flat(whole[half:]))
    for start in (1, 2, 4, half, half + 3, len(whole), len(whole) + 5):
        same(batches(BankDataset(**kept, start=start), workers), whole[start:])


def test_ranks_are_disjoint(home):
    parts = [flat(batches(BankDataset(home / "bank.zarr", 16, epochs=1, rank=rank, world=4))) for rank in range(4)]
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(2 * COUNT * DRAWS))


def test_epochs_follow_without_end(home):
    dataset = BankDataset(home / "bank.zarr", 100)
    assert sum(1 for _ in zip(range(50), dataset, strict=False)) == 50


@pytest.mark.parametrize("wrong", [{"start": -1}, {"batch": 0}, {"rank": 1}, {"images": "nothing.zarr"}])
def test_bad_arguments(home, wrong):
    given = {"bank": home / "bank.zarr", "batch": 16} | wrong
    if "images" in wrong:
        given["images"] = home / wrong["images"]
    with pytest.raises(InputError):
        BankDataset(**given)


def test_images_of_another_set(home, tmp_path):
    other = Split(np.zeros((3, 1, 4, 4), np.uint8), None)
    write_imageset(tmp_path / "other.zarr", "other", other, other)
    with pytest.raises(InputError):
        BankDataset(home / "bank.zarr", 16, tmp_path / "other.zarr")


def test_the_documented_code_runs(home, monkeypatch):
    """Each block of docs/bank.md, as it stands; the first trains a network, for fewer steps."""
    monkeypatch.chdir(home)
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert len(blocks) == 3
    weight = torch.nn.Parameter(torch.zeros(()))
    names = {"network": lambda x_t, t, labels: weight * x_t, "optimizer": torch.optim.SGD([weight], 1e-6)}
    assert "range(10_000)" in blocks[0]
    exec(blocks[0].replace("range(10_000)", "range(7)"), names)
    assert names["step"] == 6 and weight.item() > 0
    for block in blocks[1:]:
        exec(block, names)
    assert names["z"].shape == (160, 1, 4, 4) and len(names["rows"]) <= 256
