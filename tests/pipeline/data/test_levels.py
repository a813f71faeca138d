import numpy as np
import pytest

from pipeline.data.levels import quantise, to_unit
from storage.errors import InputError


@pytest.mark.parametrize("levels", [2, 16, 17, 255, 256])
def test_every_level_comes_back(levels):
    u = np.arange(levels, dtype=np.uint8)
    x = to_unit(u, levels)
    assert x.dtype == np.float32 and x[0] == -1 and x[-1] == 1
    assert np.array_equal(quantise(x, levels), u) and quantise(x, levels).dtype == np.uint8
    # An image may have been through other float arithmetic on the way.
    assert np.array_equal(quantise((x * 0.5 + 0.5) * 2 - 1, levels), u)


def test_halves_go_up_and_values_beyond_the_ends_stay_there():
    x = np.array([0.5, 1.5, 1.4999]) * 2 / 16 - 1
    assert quantise(x, 17).tolist() == [1, 2, 1]
    assert quantise(np.array([-3.0, 3.0, -np.inf, np.inf]), 17).tolist() == [0, 16, 0, 16]


def test_error_is_at_most_half_a_level():
    x = np.linspace(-1, 1, 10_001)
    assert np.abs(to_unit(quantise(x)) - x).max() <= 1 / 255 + 1e-6


def test_bad_input():
    with pytest.raises(InputError):
        quantise(np.array([0.0, np.nan]))
    with pytest.raises(InputError):
        quantise(np.zeros(1), 257)
    with pytest.raises(InputError):
        to_unit(np.array([17], dtype=np.uint8), 17)
