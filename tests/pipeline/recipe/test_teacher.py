"""The teacher's shape: one number of layers or one for each block, one noise level or a range of them."""

import pytest

from pipeline.engine.dag import build
from pipeline.outputs.networks import teacher_architecture
from pipeline.recipe.load import load
from storage.errors import InputError, RecipeError

EVEN = ["teacher.blocks=8", "teacher.layers=1"]
LEVELS = ["teacher.noise_levels=[0.05, 0.4]"]


class Digits:
    channels, size, classes = 1, 8, [str(digit) for digit in range(10)]


def architecture(*overrides):
    return teacher_architecture(load("nfm-digits", overrides).teacher, Digits)


def test_layers_are_of_each_block_and_the_noise_level_is_known_to_a_flow_of_several_alone():
    even, deep, levels = architecture(*EVEN), architecture(), architecture(*LEVELS)
    assert even.depths == (1,) * 8 and deep.depths == (1, 1, 1, 5) and deep.noise_std is None
    assert levels.noise_std == 0.2 == load("nfm-digits").teacher.noise_std


def test_both_change_the_teacher_and_what_follows_from_it():
    plain, even, levels = (build(load("nfm-digits", more))["teacher"].fingerprint for more in ([], EVEN, LEVELS))
    assert len({plain, even, levels}) == 3
    assert plain == build(load("nfm-digits", ["teacher.noise_levels=null"]))["teacher"].fingerprint


@pytest.mark.parametrize(
    "settings",
    [
        ["teacher.noise_levels=[0.3, 0.4]"],  # without noise_std
        ["teacher.noise_levels=[0.2, 0.2]"],
        ["teacher.noise_levels=[0, 0.4]"],
        ["teacher.noise_levels=[0.1, 1.5]"],
        ["teacher.noise_levels=[0.1]"],
        ["teacher.dequantisation=uniform"],
        ["teacher.layers=[1, 0]"],
        ["teacher.layers=[1, 1, 1]"],  # of four blocks
        ["teacher.annealed=true"],  # without guidance
        ["teacher.attention_temperature=2"],
    ],
)
def test_what_does_not_fit_is_refused(settings):
    with pytest.raises(RecipeError):
        load("nfm-digits", settings)


@pytest.mark.parametrize("layers", ["[]", "[1, 2]"])
def test_layers_must_be_as_many_as_blocks(layers):
    with pytest.raises(InputError):
        architecture(f"teacher.layers={layers}")
