"""Which classes are generated: in the data's proportions, in no order of the data's."""

from types import SimpleNamespace

import numpy as np
import torch

from pipeline.data.examples import Examples
from pipeline.data.labels import like_held_out, like_training, rows_like


def images(labels):
    return SimpleNamespace(train=SimpleNamespace(labels=labels))


def test_labels_come_in_the_proportions_of_the_data_and_shuffled():
    sorted_by_class = np.repeat([0, 1, 2], [60, 30, 10])
    made = like_training(images(sorted_by_class), 100, 5)
    assert made.bincount().tolist() == [60, 30, 10]
    assert len(made[:20].unique()) == 3 and not torch.equal(made, torch.from_numpy(sorted_by_class))
    assert torch.equal(like_training(images(sorted_by_class), 250, 5)[:100], made)
    assert like_training(images(sorted_by_class), 250, 5)[:200].bincount().tolist() == [120, 60, 20]
    assert not torch.equal(like_training(images(sorted_by_class), 100, 6), made)


def test_without_classes_there_are_no_labels():
    assert like_training(images(None), 10, 0) is None


def test_rows_have_the_labels_asked_for_and_none_comes_twice_while_there_are_others():
    examples = Examples(np.zeros((6, 1, 2, 2), np.uint8), np.array([0, 1, 0, 1, 2, 0]))
    assert rows_like(examples, torch.arange(6), torch.tensor([0, 0, 2, 1, 0, 0, 2])).tolist() == [0, 2, 4, 1, 5, 0, 4]
    assert rows_like(examples, torch.tensor([3, 1]), None).tolist() == [3, 1]


def test_as_many_of_each_class_as_of_the_held_out_images():
    def held_out(labels):
        images = SimpleNamespace(test=SimpleNamespace(images=np.zeros((4, 1, 2, 2), np.uint8), labels=labels))
        images.originals = images
        return images

    labels = torch.tensor([1, 0, 1, 1, 2, 0, 0, 1])
    chosen = like_held_out(held_out(np.array([0, 1, 1, 2], np.uint8)), labels, 8)
    assert chosen.nonzero().flatten().tolist() == [0, 1, 2, 4]
    assert like_held_out(held_out(None), labels, 8).tolist() == 4 * [True] + 4 * [False]
    assert like_held_out(held_out(None), None, 4).tolist() == 4 * [True]
    for too_many in ([0, 1, 1, 3], [0, 1, 2, 2]):  # none of class 3, one of class 2
        assert like_held_out(held_out(np.array(too_many, np.uint8)), labels, 8) is None
    assert like_held_out(held_out(None), None, 3) is None
