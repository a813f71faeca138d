"""The temperature of samples: a number, or the spread of the noise that the teacher gives held-out images."""

from types import SimpleNamespace

import pytest

from pipeline.outputs.banks import temperature_of
from storage.errors import MissingError


def test_held_out_is_the_spread_in_the_banks_figures():
    inputs = {"bank": SimpleNamespace(metrics={"gaussianity": {"train": {"std": 1.0}, "held_out": {"std": 1.117}}})}
    assert temperature_of("held-out", inputs) == 1.117
    assert temperature_of(0.9, inputs) == temperature_of(0.9, {}) == 0.9
    with pytest.raises(MissingError):
        temperature_of("held-out", {})
