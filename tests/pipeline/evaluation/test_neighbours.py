"""Nearest training images: mirrored ones count where they were trained on, whatever the parts they are read in."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.evaluation import neighbours
from pipeline.evaluation.neighbours import TrainingSetNeighbours
from pipeline.metrics.neighbours import judged
from storage.errors import Interrupted


def images(train=40, test=20, side=4):
    generator = np.random.default_rng(0)
    splits = [
        SimpleNamespace(images=generator.integers(0, 256, (n, 3, side, side), dtype=np.uint8), labels=None)
        for n in (train, test)
    ]
    return SimpleNamespace(train=splits[0], test=splits[1], levels=256)


def test_a_mirrored_copy_is_a_copy_where_mirror_images_were_trained_on(monkeypatch):
    monkeypatch.setattr(neighbours, "VALUES_IN_MEMORY", 48 * 7)  # seven images at a time
    with_flips, without = TrainingSetNeighbours(images(), True), TrainingSetNeighbours(images(), False)
    copies = with_flips.train.pixels(torch.tensor([3, 17, 45, 79]))  # two of them mirrored
    distances, rows = with_flips.nearest(copies)
    assert torch.equal(distances, torch.zeros(4)) and rows.tolist() == [3, 17, 45, 79]
    assert (without.nearest(copies)[0] == 0).tolist() == [True, True, False, False]


def test_held_out_images_are_the_yardstick():
    held_out = TrainingSetNeighbours(images(), False).held_out()
    comparison = judged(torch.zeros(10), held_out)
    assert comparison.copies == 1.0 and comparison.held_out[1] == float(held_out.median())
    assert judged(held_out, held_out).copies <= 0.05


def test_a_search_can_stop_between_parts(monkeypatch):
    monkeypatch.setattr(neighbours, "VALUES_IN_MEMORY", 48 * 7)
    seen = []

    def progress(done, total):
        seen.append((done, total))
        if done > 10:
            raise Interrupted("stopped")

    training = TrainingSetNeighbours(images(), False, progress=progress)
    with pytest.raises(Interrupted):
        training.nearest(training.train.pixels(torch.arange(3)))
    assert seen == [(7, 40), (14, 40)]
