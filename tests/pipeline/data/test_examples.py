from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.data import examples as module
from pipeline.data.examples import Examples, drawn, drop_labels
from pipeline.runtime.seeds import generator

IMAGES = np.arange(10 * 16, dtype=np.uint8).reshape(10, 1, 4, 4)
LABELS = np.arange(10) % 3


def examples(flips=False):
    return Examples(IMAGES, LABELS, 256, flips)


@pytest.mark.parametrize(("asked", "rows", "first"), [({}, 3, 0), ({"flips": True}, 6, 0), ({"split": "test"}, 2, 3)])
def test_those_of_a_split(asked, rows, first):
    parts = {
        name: SimpleNamespace(images=IMAGES[part], labels=LABELS[part])
        for name, part in (("train", slice(0, 3)), ("test", slice(3, 5)))
    }
    found = Examples.of(SimpleNamespace(**parts, levels=200), **asked)
    assert len(found) == rows and found.levels == 200
    assert np.array_equal(found.images[0], IMAGES[first]) and found.labels[0] == LABELS[first]


def test_every_epoch_is_a_permutation_of_its_own():
    rows = torch.cat([examples().rows(7, step, 4) for step in range(5)])
    first, second = rows[:10], rows[10:]
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(10))
    assert first.tolist() != second.tolist()


def test_a_step_is_known_without_those_before_it():
    assert torch.equal(examples().rows(7, 23, 4), examples().rows(7, 23, 4))
    assert not torch.equal(examples().rows(7, 23, 4), examples().rows(8, 23, 4))


def test_drawn_rows_are_of_all_places_and_always_the_same():
    rows = drawn(100, 1000)
    assert len(rows.unique()) == 100 and torch.equal(rows, drawn(100, 1000))
    assert rows.min() < 100 and rows.max() >= 900 and rows.tolist() != sorted(rows.tolist())
    assert sorted(drawn(50, 10).tolist()) == list(range(10))


@pytest.mark.parametrize("batch", [1, 10, 25])
def test_batches_larger_than_the_set_go_on_in_the_next_epoch(batch):
    assert len(examples().rows(7, 3, batch)) == batch


def test_mirrored_rows_are_mirrored_and_keep_their_label():
    both = examples(flips=True)
    assert len(both) == 20
    straight, mirrored = both.pixels(torch.tensor([3])), both.pixels(torch.tensor([13]))
    assert torch.equal(straight.flip(-1), mirrored)
    assert torch.equal(both.classes(torch.tensor([3])), both.classes(torch.tensor([13])))


def test_on_a_device_they_are_filled_in_parts(monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 5)
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 4, 4), dtype=np.uint8)
    examples, rows = Examples(images, None, flips=True), torch.tensor([13, 2, 2, 0, 9, 6, 11])
    assert torch.equal(examples.pixels_on(torch.device("cpu"), rows), examples.pixels(rows))


def test_float_images_are_taken_as_they_are():
    images = np.random.default_rng(0).normal(size=(3, 1, 4, 4)).astype(np.float32)
    assert torch.equal(Examples(images, None).pixels(torch.arange(3)), torch.from_numpy(images))


def test_labels_are_dropped_image_by_image():
    dropped = drop_labels(torch.zeros(10_000, dtype=torch.int64), 0.1, generator(1))
    assert (dropped == -1).double().mean() == pytest.approx(0.1, abs=0.015)
    assert drop_labels(None, 0.5, generator(1)) is None


def test_latents_bring_their_mirror_images_along():
    images = np.random.default_rng(0).normal(size=(6, 4, 2, 2)).astype(np.float32)
    both = Examples(images, LABELS[:6], None, flips=True)
    assert len(both) == 6
    assert torch.equal(both.pixels(torch.arange(6)), torch.from_numpy(images))
