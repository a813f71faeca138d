"""Nearest training images: mirrored ones count where they were trained on, whatever the parts they are read in."""

from types import SimpleNamespace

import numpy as np
import torch

from pipeline.evaluation import neighbours
from pipeline.evaluation.neighbours import TrainingSetNeighbours


def images(train=40, test=20, side=4):
    generator = np.random.default_rng(0)
    splits = [
        SimpleNamespace(images=generator.integers(0, 256, (n, 3, side, side), dtype=np.uint8), labels=None)
        for n in (train, test)
    ]
    return SimpleNamespace(train=splits[0], test=splits[1], levels=256)


def test_a_mirrored_copy_is_a_copy_where_mirror_images_were_trained_on(monkeypatch):
    monkeypatch.setattr(neighbours, "AT_ONCE", 48 * 7)  # seven images at a time
    with_flips, without = TrainingSetNeighbours(images(), True), TrainingSetNeighbours(images(), False)
    copies = with_flips.train.pixels(torch.tensor([3, 17, 45, 79]))  # two of them mirrored
    distances, rows = with_flips.nearest(copies)
    assert torch.equal(distances, torch.zeros(4)) and rows.tolist() == [3, 17, 45, 79]
    assert (without.nearest(copies)[0] == 0).tolist() == [True, True, False, False]


def test_held_out_images_are_the_yardstick():
    training = TrainingSetNeighbours(images(), False)
    judged = training.judged(torch.zeros(10))
    assert judged.copies == 1.0 and judged.held_out[1] == float(training.held_out.median())
    assert training.judged(training.held_out).copies <= 0.05
    assert TrainingSetNeighbours(images(test=0), False).judged(torch.zeros(10)) is None
