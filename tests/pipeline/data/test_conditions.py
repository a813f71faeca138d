"""Conditions are those of the very images that are trained on, and of the test images that samples should be."""

import numpy as np
import pytest
import torch

from pipeline.couplings import Independent
from pipeline.data.conditions import TargetImages, condition_of, low_resolution
from pipeline.data.examples import Examples
from pipeline.data.levels import quantise, to_unit
from pipeline.data.sources import load
from pipeline.flow_matching.paths import LINEAR
from pipeline.flow_matching.times import Uniform
from pipeline.training.flow_batches import FlowBatches
from storage.errors import DataError, RecipeError
from tests.pipeline.data.sources.formats import data_config

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


# -- low resolution --------------------------------------------------------------------------------------------------


def unit(levels, rows):
    return torch.from_numpy(to_unit(np.array([[rows]], np.uint8), levels))


def test_means_of_blocks_by_hand():
    x = unit(256, [[0, 1, 10, 20], [2, 4, 30, 40], [255, 255, 0, 0], [255, 255, 0, 1]])
    # means 1.75, 25, 255, 0.25
    expected = unit(256, [[2, 2, 25, 25], [2, 2, 25, 25], [255, 255, 0, 0], [255, 255, 0, 0]])
    assert torch.equal(low_resolution(x, 2), expected)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_halves_go_up_exactly_at_every_level(levels):
    for low in range(levels - 1):
        x = unit(levels, [[low, low + 1], [low + 1, low]])
        assert torch.equal(low_resolution(x, 2, levels), unit(levels, [[low + 1] * 2] * 2))


def test_values_between_levels_are_taken_as_stored():
    x = unit(17, [[0, 0], [0, 3]]) + 0.05  # a level is 0.125 wide
    assert torch.equal(low_resolution(x, 2, 17), unit(17, [[1, 1], [1, 1]]))


def test_channels_and_images_stay_apart():
    x = torch.from_numpy(to_unit(np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)))
    small = low_resolution(x, 2)
    assert small.shape == x.shape and small.dtype == torch.float32
    assert torch.equal(small[1:2, 2:], low_resolution(x[1:2, 2:], 2))
    blocks = small[:, :, ::2, ::2]
    assert torch.equal(blocks.repeat_interleave(2, 2).repeat_interleave(2, 3), small)
    half_a_level = 1 / 255
    assert (blocks - torch.nn.functional.avg_pool2d(x, 2)).abs().max() <= half_a_level + 1e-6


def test_digits_at_half_size():
    digits = load(data_config("digits", limit=50)).train.images
    small = low_resolution(torch.from_numpy(to_unit(digits, 17)), 2, 17)
    grey = quantise(small[:, :, ::2, ::2].numpy(), 17)
    assert grey.shape == (50, 1, 4, 4)
    mean = digits.reshape(50, 1, 4, 2, 4, 2).mean((3, 5))
    np.testing.assert_array_equal(grey, np.floor(mean + 0.5))


def test_a_factor_of_one_rounds_only():
    x = unit(17, [[0, 16], [5, 7]])
    assert torch.equal(low_resolution(x, 1, 17), x)
    assert torch.equal(
        low_resolution(low_resolution(unit(17, [[0, 16], [5, 7]]), 2, 17), 2, 17), low_resolution(x, 2, 17)
    )


@pytest.mark.parametrize("factor", [0, -2, 3])
def test_factors_that_do_not_divide(factor):
    with pytest.raises(RecipeError):
        low_resolution(torch.zeros(1, 1, 8, 8), factor)
