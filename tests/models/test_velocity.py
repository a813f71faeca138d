"""What both velocity networks promise: the same inputs, labels, times, conditions, dtypes, layouts and refusals."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from tests.models.networks import TINY_DIT, TINY_UNET, built, inputs, randomised

pytestmark = pytest.mark.parametrize("tiny", [TINY_UNET, TINY_DIT], ids=["U-Net", "DiT"])


# --- labels and time


def test_no_labels_means_the_null_class(tiny):
    net = randomised(tiny).eval()
    x, t, labels = inputs(tiny)
    assert torch.equal(net(x, t), net(x, t, torch.full((4,), -1)))
    assert not torch.equal(net(x, t), net(x, t, labels))


def test_labels_act_on_their_own_row_only(tiny):
    net = randomised(tiny).eval()
    x, t, labels = inputs(tiny)
    dropped = labels.where(torch.arange(4) != 2, -1)
    change = (net(x, t, labels) - net(x, t, dropped)).abs().amax((1, 2, 3))
    assert (change > 1e-4).tolist() == [False, False, True, False]


def test_every_class_has_an_output_of_its_own(tiny):
    net = randomised(tiny).eval()
    x, t, _ = inputs(tiny)
    outputs = torch.stack([net(x[:1], t[:1], torch.tensor([label]))[0] for label in (-1, 0, 1, 2)]).flatten(1)
    assert torch.cdist(outputs, outputs)[~torch.eye(4, dtype=torch.bool)].min() > 1e-4


def test_unconditional_network_refuses_labels(tiny):
    x, t, labels = inputs(tiny)
    net = built(replace(tiny, classes=0))
    assert net(x, t).shape == x.shape
    with pytest.raises(ValueError, match="labels"):
        net(x, t, labels)


def test_time_changes_the_output_across_its_whole_range(tiny):
    net = randomised(tiny).eval()
    x, _, labels = inputs(tiny)
    outputs = [net(x, torch.tensor(t), labels) for t in (0.0, 0.01, 0.5, 0.99, 1.0)]
    for a, b in pairwise(outputs):
        assert (a - b).abs().max() > 1e-3


def test_scalar_time_equals_the_same_time_for_all(tiny):
    net = randomised(tiny).eval()
    x, _, labels = inputs(tiny)
    assert torch.equal(net(x, torch.tensor(0.3), labels), net(x, torch.full((4,), 0.3), labels))


def test_a_network_of_intervals_sees_their_length(tiny):
    """As r = t where no r is given; and of r nothing but t - r, for one t."""
    network = randomised(replace(tiny, interval=True)).double().eval()
    x, t, labels = inputs(tiny, dtype=torch.float64)
    instant = network(x, t, labels)
    assert torch.equal(network(x, t, labels, r=t), instant)
    spans, hook = [], lambda module, given: spans.append(given[0])
    network.embed_span.register_forward_pre_hook(hook)
    assert (network(x, t, labels, r=t / 2) - instant).abs().max() > 1e-3
    assert torch.equal(spans[0], network.sinusoids(t - t / 2))


# --- condition


def test_condition_is_seen_by_its_own_row_only(tiny):
    net = randomised(replace(tiny, condition_channels=3)).eval()
    x, t, labels = inputs(tiny)
    condition = torch.randn(4, 3, 8, 8)
    changed = condition.clone()
    changed[1, 0, 0, 0] += 1
    change = (net(x, t, labels, condition) - net(x, t, labels, changed)).abs().amax((1, 2, 3))
    assert (change > 1e-4).tolist() == [False, True, False, False]


def test_a_condition_with_zero_weights_is_no_condition(tiny):
    plain, conditioned = randomised(tiny).eval(), randomised(replace(tiny, condition_channels=3)).eval()
    weights, shapes = plain.state_dict(), conditioned.state_dict()
    assert {n for n, v in shapes.items() if v.shape != weights[n].shape} == {"enter.weight"}
    enter = torch.zeros_like(shapes["enter.weight"])
    enter[:, : weights["enter.weight"].shape[1]] = weights["enter.weight"]
    conditioned.load_state_dict(weights | {"enter.weight": enter})
    x, t, labels = inputs(tiny)
    out = conditioned(x, t, labels, torch.randn(4, 3, 8, 8))
    torch.testing.assert_close(out, plain(x, t, labels), atol=1e-5, rtol=0)


# --- training


def test_gradients_reach_every_parameter(tiny):
    net = randomised(replace(tiny, condition_channels=1, dropout=0.0))
    x, t, labels = inputs(tiny)
    labels[0] = -1
    (net(x, t, labels, torch.randn(4, 1, 8, 8)) - x).square().mean().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert net.embed_label.weight.grad.abs().amax(1).min() > 0  # rows of the null class and of all three others
    assert net.enter.weight.grad.abs().flatten(1).amax(0).min() > 0  # those of the condition too


def test_dropout_acts_in_training_only(tiny):
    net = randomised(replace(tiny, dropout=0.5))
    x, t, labels = inputs(tiny)
    assert not torch.equal(net(x, t, labels), net(x, t, labels))
    net.eval()
    assert torch.equal(net(x, t, labels), net(x, t, labels))
    assert torch.equal(net(x, t, labels), randomised(tiny).eval()(x, t, labels))


# --- dtypes and layouts


def test_float64_agrees_with_float32(tiny):
    net = randomised(tiny).eval()
    single = net(*inputs(tiny))
    x, t, labels = inputs(tiny)
    double = net.double()(x.double(), t.double(), labels)
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, atol=1e-4, rtol=0)


def test_bfloat16_autocast_returns_float32_close_to_full_precision(tiny):
    net = randomised(replace(tiny, dropout=0.0))
    x, t, labels = inputs(tiny)
    with torch.autocast("cpu", torch.bfloat16):
        half = net(x, t, labels)
        half.square().mean().backward()
    full = net(x, t, labels)
    assert half.dtype == torch.float32 and not torch.equal(half, full)
    assert (half - full).abs().max() < 0.05 * full.abs().max()
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_channels_last_equals_contiguous(tiny):
    net = randomised(tiny).eval()
    x, t, labels = inputs(tiny)
    contiguous = net(x, t, labels)
    last = net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last), t, labels)
    torch.testing.assert_close(last, contiguous, atol=1e-5, rtol=0)


@pytest.mark.parametrize("condition_channels", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_traces_without_graph_breaks(tiny, condition_channels):
    torch._dynamo.reset()
    net = randomised(replace(tiny, condition_channels=condition_channels)).eval()
    x, t, labels = inputs(tiny)
    condition = torch.randn(4, condition_channels, 8, 8) if condition_channels else None
    # The eager backend traces all and compiles nothing, so this is fast and needs no C++ compiler.
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, t, labels, condition), net(x, t, labels, condition))
    torch.testing.assert_close(compiled(x, t, None, condition), net(x, t, None, condition))


# --- broken rules


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"dropout": 1.0}, "dropout must lie in"),
        ({"classes": -1}, "classes must be at least 0"),
        ({"condition_channels": -1}, "condition_channels must be at least 0"),
    ],
)
def test_config_states_the_broken_rule(tiny, change, rule):
    with pytest.raises(ValueError, match=rule):
        replace(tiny, **change)


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
def test_forward_states_the_broken_rule(tiny, change, rule):
    x, t, labels = inputs(tiny)
    with pytest.raises(ValueError, match=rule):
        built(tiny)(**({"x": x, "t": t, "labels": labels} | change))


@pytest.mark.parametrize(
    ("condition", "rule"),
    [
        (None, r"condition must be given, \(4, 1, 8, 8\)"),
        (torch.zeros(4, 2, 8, 8), r"condition must be .* \(4, 1, 8, 8\), got torch.float32 \(4, 2, 8, 8\)"),
        (torch.zeros(4, 1, 4, 4), r"condition must be .* \(4, 1, 8, 8\), got torch.float32 \(4, 1, 4, 4\)"),
        (torch.zeros(4, 1, 8, 8, dtype=torch.float64), r"condition must be torch.float32 .* got torch.float64"),
    ],
)
def test_conditioned_network_states_the_broken_rule(tiny, condition, rule):
    with pytest.raises(ValueError, match=rule):
        built(replace(tiny, condition_channels=1))(*inputs(tiny), condition)
