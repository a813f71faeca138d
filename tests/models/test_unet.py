"""The U-Net: the architecture of the literature at any size; what it shares with the DiT is in test_velocity."""

from dataclasses import replace

import pytest
import torch

from models.unet import CONFIGS, UNet
from tests.models.networks import TINY_UNET as TINY
from tests.models.networks import inputs, randomised


def test_cifar10_is_the_network_of_the_literature():
    config = CONFIGS["cifar10"]
    with torch.device("meta"):
        count = sum(p.numel() for p in UNet(config).parameters())
        conditional = sum(p.numel() for p in UNet(replace(config, classes=10)).parameters())
    assert count == 35_746_307  # torchcfm's, LOOM-CFM's
    assert conditional - count == 11 * 512  # ten classes and the null class


def test_untrained_network_returns_zeros_of_the_input_shape():
    config = CONFIGS["digits"]
    torch.manual_seed(0)
    x, t, labels = inputs(config)
    assert torch.equal(UNet(config)(x, t, labels), torch.zeros(4, 1, 8, 8))


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        replace(TINY, multipliers=(2,), attention=(8,)),
        replace(TINY, multipliers=(1, 2, 3, 4), attention=(4, 1), blocks=2),
        replace(TINY, base=12, attention=(), head_channels=12),
        replace(TINY, channels=1, size=12, multipliers=[1, 2], attention=[6]),
    ],
)
def test_any_architecture_keeps_the_shape(config):
    x, t, labels = inputs(config)
    v = randomised(config)(x, t, labels)
    assert v.shape == x.shape and v.isfinite().all()


def test_a_seed_goes_on_giving_the_weights_it_always_gave():
    torch.manual_seed(0)
    weights = UNet(TINY).state_dict()
    assert len(weights) == 129 and next(iter(weights)) == "embed_time.0.weight"
    # From before there were conditions. The second was drawn after nearly all others.
    first, late = weights["enter.weight"].flatten()[:3], weights["up.3.0.shortcut.weight"].flatten()[-3:]
    assert first.tolist() == pytest.approx([0.23528236, 0.21604787, -0.12198523], abs=1e-7)
    assert late.tolist() == pytest.approx([0.09185678, -0.19617298, -0.16042337], abs=1e-7)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"size": 9}, "size must be divisible by .* = 2, got 9"),
        ({"base": 10}, "base must be divisible by 4, got 10; try 12"),
        ({"multipliers": ()}, "multipliers must be one or more"),
        ({"multipliers": (1, 0)}, "multipliers must be one or more"),
        ({"multipliers": (1, 3), "head_channels": 16}, "head_channels must divide .* 16 and width 24"),
        ({"attention": (16,)}, r"attention must name resolutions .*\(8, 4\), got \[16\]"),
        ({"blocks": 0}, "blocks must be at least 1"),
    ],
)
def test_config_states_the_broken_rule(change, rule):
    with pytest.raises(ValueError, match=rule):
        replace(TINY, **change)
