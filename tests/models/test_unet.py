"""The U-Net: the architecture of the literature, honest about its inputs, the same in every dtype and layout."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from models.unet import CONFIGS, UNet, UNetConfig

TINY = UNetConfig(channels=2, size=8, base=8, multipliers=(1, 2), blocks=1, attention=(4,), head_channels=8, classes=3)


def randomised(config: UNetConfig = TINY) -> UNet:
    """A network whose zero-initialised layers are no longer zero, so that everything reaches the output."""
    torch.manual_seed(0)
    net = UNet(config)
    for p in net.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.1)
    return net


def inputs(
    config: UNetConfig = TINY, batch: int = 4, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    x = torch.randn(batch, config.channels, config.size, config.size, dtype=dtype)
    return x, torch.rand(batch, dtype=dtype), torch.arange(batch) % config.classes


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


def test_no_labels_means_the_null_class():
    net = randomised().eval()
    x, t, _ = inputs()
    assert torch.equal(net(x, t), net(x, t, torch.full((4,), -1)))


def test_labels_act_on_their_own_row_only():
    net = randomised().eval()
    x, t, labels = inputs()
    dropped = labels.where(torch.arange(4) != 2, -1)
    change = (net(x, t, labels) - net(x, t, dropped)).abs().amax((1, 2, 3))
    assert (change > 1e-4).tolist() == [False, False, True, False]


def test_time_changes_the_output_across_its_whole_range():
    net = randomised().eval()
    x, _, labels = inputs()
    outputs = [net(x, torch.tensor(t), labels) for t in (0.0, 0.01, 0.5, 0.99, 1.0)]
    for a, b in pairwise(outputs):
        assert (a - b).abs().max() > 1e-3


def test_scalar_time_equals_the_same_time_for_all():
    net = randomised().eval()
    x, _, labels = inputs()
    assert torch.equal(net(x, torch.tensor(0.3), labels), net(x, torch.full((4,), 0.3), labels))


def test_dropout_acts_in_training_only():
    net = randomised()
    x, t, labels = inputs()
    assert not torch.equal(net(x, t, labels), net(x, t, labels))
    net.eval()
    assert torch.equal(net(x, t, labels), net(x, t, labels))


def test_float64_agrees_with_float32():
    net = randomised().eval()
    single = net(*inputs())
    x, t, labels = inputs()
    double = net.double()(x.double(), t.double(), labels)
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, atol=1e-4, rtol=0)


def test_bfloat16_autocast_returns_float32_close_to_full_precision():
    net = randomised().eval()
    x, t, labels = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        half = net(x, t, labels)
    full = net(x, t, labels)
    assert half.dtype == torch.float32
    assert (half - full).abs().max() < 0.05 * full.abs().max()


def test_channels_last_equals_contiguous():
    net = randomised().eval()
    x, t, labels = inputs()
    contiguous = net(x, t, labels)
    last = net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last), t, labels)
    torch.testing.assert_close(last, contiguous, atol=1e-5, rtol=0)


def test_traces_without_graph_breaks():
    torch._dynamo.reset()
    net = randomised().eval()
    x, t, labels = inputs()
    # The eager backend traces all and compiles nothing, so this is fast and needs no C++ compiler.
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, t, labels), net(x, t, labels))
    torch.testing.assert_close(compiled(x, t), net(x, t))


def test_gradients_reach_every_parameter():
    net = randomised(replace(TINY, dropout=0.0))
    x, t, labels = inputs()
    (net(x, t, labels) - x).square().mean().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_condition_is_seen_by_its_own_row_and_through_the_first_layer_alone():
    config = replace(TINY, condition_channels=3)
    net, plain = randomised(config).eval(), randomised().eval()
    x, t, labels = inputs()
    condition = torch.randn(4, 3, 8, 8)
    changed = condition.clone()
    changed[1, 0, 0, 0] += 1
    change = (net(x, t, labels, condition) - net(x, t, labels, changed)).abs().amax((1, 2, 3))
    assert (change > 1e-4).tolist() == [False, True, False, False]
    # The same weights with zeros for the condition: the network without one.
    weights = plain.state_dict()
    assert {n for n, v in net.state_dict().items() if v.shape != weights[n].shape} == {"enter.weight"}
    net.load_state_dict(weights | {"enter.weight": torch.cat([weights["enter.weight"], torch.zeros(8, 3, 3, 3)], 1)})
    torch.testing.assert_close(net(x, t, labels, condition), plain(x, t, labels), atol=1e-5, rtol=0)


def test_gradients_reach_the_weights_of_the_condition():
    net = randomised(replace(TINY, condition_channels=1))
    x, t, labels = inputs()
    (net(x, t, labels, torch.randn(4, 1, 8, 8)) - x).square().mean().backward()
    assert net.enter.weight.grad[:, -1].abs().amax((1, 2)).min() > 0


def test_conditioned_network_traces_without_graph_breaks():
    torch._dynamo.reset()
    net = randomised(replace(TINY, condition_channels=1)).eval()
    x, t, labels = inputs()
    condition = torch.randn(4, 1, 8, 8)
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, t, labels, condition), net(x, t, labels, condition))


def test_a_seed_goes_on_giving_the_weights_it_always_gave():
    torch.manual_seed(0)
    weights = UNet(TINY).state_dict()
    assert len(weights) == 129 and next(iter(weights)) == "embed_time.0.weight"
    # From before there were conditions. The second was drawn after nearly all others.
    first, late = weights["enter.weight"].flatten()[:3], weights["up.3.0.shortcut.weight"].flatten()[-3:]
    assert first.tolist() == pytest.approx([0.23528236, 0.21604787, -0.12198523], abs=1e-7)
    assert late.tolist() == pytest.approx([0.09185678, -0.19617298, -0.16042337], abs=1e-7)


def test_unconditional_network_refuses_labels():
    x, t, labels = inputs()
    net = UNet(replace(TINY, classes=0))
    assert net(x, t).shape == x.shape
    with pytest.raises(ValueError, match="labels must be None"):
        net(x, t, labels)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"size": 9}, "size must be divisible by .* = 2, got 9"),
        ({"base": 10}, "base must be divisible by 4, got 10; try 12"),
        ({"multipliers": ()}, "multipliers must be one or more"),
        ({"multipliers": (1, 0)}, "multipliers must be one or more"),
        ({"multipliers": (1, 3), "head_channels": 16}, "head_channels must divide .* 16 and width 24"),
        ({"attention": (16,)}, r"attention must name resolutions .*\(8, 4\), got \[16\]"),
        ({"dropout": 1.0}, "dropout must lie in"),
        ({"classes": -1}, "classes must be at least 0"),
        ({"blocks": 0}, "blocks must be at least 1"),
        ({"condition_channels": -1}, "condition_channels must be at least 0"),
    ],
)
def test_config_states_the_broken_rule(change, rule):
    with pytest.raises(ValueError, match=rule):
        replace(TINY, **change)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"x": torch.zeros(4, 2, 16, 16)}, r"x must be \(B, 2, 8, 8\), got \(4, 2, 16, 16\)"),
        ({"x": torch.zeros(2, 8, 8)}, "x must be"),
        ({"t": torch.zeros(3)}, r"t must be .* \(4,\)"),
        ({"t": torch.zeros(4, dtype=torch.int64)}, "t must be floating point"),
        ({"labels": torch.tensor([0, 1, 2, 3])}, r"labels must lie in \[-1, 3\), got 3"),
        ({"labels": torch.tensor([0, -2, 0, 0])}, r"labels must lie in \[-1, 3\), got -2"),
        ({"labels": torch.zeros(4)}, "labels must be int64"),
        ({"labels": torch.zeros(1, dtype=torch.int64)}, "labels must be int64"),
        ({"condition": torch.zeros(4, 1, 8, 8)}, "condition must be None"),
    ],
)
def test_forward_states_the_broken_rule(change, rule):
    x, t, labels = inputs()
    with pytest.raises(ValueError, match=rule):
        UNet(TINY)(**({"x": x, "t": t, "labels": labels} | change))


@pytest.mark.parametrize(
    ("condition", "rule"),
    [
        (None, r"condition must be given, \(4, 1, 8, 8\)"),
        (torch.zeros(4, 1, 4, 4), r"condition must be .* \(4, 1, 8, 8\), got torch.float32 \(4, 1, 4, 4\)"),
        (torch.zeros(4, 1, 8, 8, dtype=torch.int64), r"condition must be torch.float32 .* got torch.int64"),
    ],
)
def test_conditioned_network_states_the_broken_rule(condition, rule):
    with pytest.raises(ValueError, match=rule):
        UNet(replace(TINY, condition_channels=1))(*inputs(), condition)
