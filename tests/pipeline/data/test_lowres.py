import numpy as np
import pytest
import torch

from pipeline.data.conditions import low_resolution
from pipeline.data.levels import quantise, to_unit
from pipeline.data.sources import load
from storage.errors import RecipeError
from tests.pipeline.data.sources.formats import data_config


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
