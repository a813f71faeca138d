"""How many noises a whitening is measured on."""

import math

from pipeline.outputs.banks import sigma_draws
from pipeline.outputs.whitening import whitening_draws


def test_four_noises_of_each_class_for_each_of_their_numbers_where_there_are_enough_draws():
    assert whitening_draws(8, 50_000, 3072, 10) == 3 == math.ceil(4 * 3072 * 10 / 50_000)
    assert whitening_draws(2, 50_000, 3072, 10) == 2
    assert whitening_draws(8, 60_000, 196, 10) == sigma_draws(8, 60_000, 196) == 2
