"""Conditions are those of the very images that are trained on, and of the test images that samples should be."""

import numpy as np
import pytest
import torch

from pipeline.couplings import Independent
from pipeline.data.conditions import TargetImages, condition_of, low_resolution
from pipeline.data.examples import Examples
from pipeline.data.levels import to_unit
from pipeline.flow_matching.paths import LINEAR
from pipeline.flow_matching.times import Uniform
from pipeline.training.flow_batches import FlowBatches
from storage.errors import DataError

SPEC = {"kind": "low-resolution", "factor": 2}


def examples(count=30, levels=17, flips=False) -> Examples:
    images = np.random.default_rng(0).integers(0, levels, (count, 1, 8, 8), dtype=np.uint8)
    return Examples(images, np.arange(count) % 3, levels, flips)


def held_out(count=30) -> TargetImages:
    return TargetImages(examples(count), SPEC, torch.arange(count))


def couples(condition, **how) -> FlowBatches:
    return FlowBatches(examples(**how), Independent(), Uniform(), LINEAR, 0.0, 7, 20, condition=condition)


def test_a_student_sees_the_condition_of_each_image_mirrored_or_not():
    stream = couples(condition_of(SPEC, 17), flips=True)
    plain = couples(None, flips=True)
    for step in range(4):
        made, without = stream(step), plain(step)
        assert torch.equal(made.condition, low_resolution(made.x, 2, 17))
        assert without.condition is None and torch.equal(made.x, without.x) and torch.equal(made.z, without.z)
        first, second = made.parts(2)
        assert torch.equal(torch.cat([first.condition, second.condition]), made.condition)


def test_no_condition_unless_asked_for():
    assert condition_of(None, 17) is None


def test_samples_should_be_the_test_images_in_turn():
    asked, rows = held_out(), torch.tensor([0, 7, 29, 30, 67])
    every = asked.examples.pixels(torch.arange(30))
    assert torch.equal(asked.images(rows), every[[0, 7, 29, 0, 7]])
    assert asked.labels(rows).tolist() == [0, 1, 2, 0, 1]
    assert torch.equal(asked.conditions(rows), low_resolution(every[[0, 7, 29, 0, 7]], 2, 17))


def test_samples_of_one_class_should_be_its_images():
    asked = held_out().of_class(2)
    rows = torch.arange(23)
    assert set(asked.labels(rows).tolist()) == {2}
    assert torch.equal(asked.images(rows[:10]), asked.examples.pixels(torch.arange(2, 30, 3)))
    with pytest.raises(DataError):
        held_out().of_class(5)


def test_bicubic_interpolation_goes_through_a_ramp():
    """It reproduces straight lines, of which blocks have exact means; at the edge pixels are repeated."""
    ramp = np.broadcast_to(2 * np.arange(16, dtype=np.uint8), (1, 1, 16, 16))
    made = TargetImages(Examples(ramp, None), SPEC, torch.arange(1)).bicubic(torch.arange(1))
    inside = slice(4, 12)
    torch.testing.assert_close(made[..., inside], torch.from_numpy(to_unit(ramp))[..., inside], atol=1e-6, rtol=0)
