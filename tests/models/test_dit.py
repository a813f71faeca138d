"""The DiT: the architecture of the papers, the formulas of its layers, and the same interface as the U-Net."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from models.dit import CONFIGS, DiT, DiTConfig
from models.dit._layers import Block
from models.dit._tokens import positions
from models.patches import patchify, unpatchify

TINY = DiTConfig(channels=2, size=8, patch=2, width=16, depth=2, heads=2, classes=3)


def randomised(config: DiTConfig = TINY) -> DiT:
    """A network whose zero-initialised layers are no longer zero, so that everything reaches the output."""
    torch.manual_seed(0)
    net = DiT(config)
    for p in net.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.2)
    return net


def inputs(
    config: DiTConfig = TINY, batch: int = 4, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    x = torch.randn(batch, config.channels, config.size, config.size, dtype=dtype)
    return x, torch.rand(batch, dtype=dtype), torch.arange(batch) % config.classes


# --- the published architecture


def count(config: DiTConfig) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in DiT(config).parameters())


@pytest.mark.parametrize(
    ("name", "exact", "authors", "millions"),
    [
        ("dit-s/2", 32_858_896, 32_963_360, 33),
        ("dit-b/2", 130_303_504, 130_512_416, 130.5),
        ("dit-l/2", 457_824_272, 458_102_816, 458),
        ("dit-xl/2", 674_816_272, 675_129_632, 675),
    ],
)
def test_parameters_are_the_published_ones(name, exact, authors, millions):
    config = CONFIGS[name]
    assert count(config) == exact
    # The authors' code also counts the fixed positions, and predicts as many channels again for a variance.
    fixed = config.tokens * config.width
    variance = (config.width + 1) * config.channels * config.patch**2
    assert exact + fixed + variance == authors
    assert authors / 1e6 == pytest.approx(millions, abs=0.15)


def test_patch_size_changes_the_first_and_last_layer_only():
    for size, width in (("s", 384), ("b", 768), ("l", 1024), ("xl", 1152)):
        counts = [count(CONFIGS[f"dit-{size}/{patch}"]) for patch in (1, 2, 4)]
        pixel = 4 * (2 * width + 1)  # weights in, weights out and a bias, for 4 channels
        assert [b - a for a, b in pairwise(counts)] == [3 * pixel, 12 * pixel]


def test_classes_and_condition_change_one_layer_each():
    base = count(TINY)
    assert base - count(replace(TINY, classes=0)) == 4 * TINY.width  # three classes and the null class
    assert count(replace(TINY, condition_channels=5)) - base == 5 * TINY.patch**2 * TINY.width


def test_untrained_network_returns_zeros_because_its_blocks_are_identities():
    torch.manual_seed(0)
    net, (x, t, labels) = DiT(TINY), inputs()
    assert torch.equal(net(x, t, labels), torch.zeros_like(x))
    h, emb = torch.randn(4, 16, 16), torch.randn(4, 16)
    for block in net.blocks:
        assert torch.equal(block(h, emb), h)


# --- tokens


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_patches_go_together_again_exactly(patch):
    image = torch.randn(3, 5, 8, 8)
    tokens = patchify(image, patch)
    assert tokens.shape == (3, (8 // patch) ** 2, 5 * patch**2)
    assert torch.equal(unpatchify(tokens, patch), image)


def test_a_token_is_a_square_of_the_image_row_by_row():
    image = torch.arange(2 * 6 * 6.0).view(1, 2, 6, 6)
    token = patchify(image, 2)[0, 5]  # of 3 x 3 patches the last of the second row
    assert torch.equal(token, image[0, :, 2:4, 4:6].flatten())


def test_positions_are_sines_and_cosines_of_column_and_row():
    table = positions(5, 24)
    for row, column, k in ((0, 0, 0), (3, 1, 0), (1, 4, 2), (4, 3, 5)):
        frequency = 10_000 ** (-k / 6)
        expected = [
            math.sin(column * frequency),
            math.cos(column * frequency),
            math.sin(row * frequency),
            math.cos(row * frequency),
        ]
        assert table[5 * row + column, k::6].tolist() == pytest.approx(expected, abs=1e-7)


def test_inner_products_of_positions_depend_on_their_offset_only():
    table = positions(6, 32).double().view(6, 6, 32)
    product = torch.einsum("abw,cdw->abcd", table, table)
    here, there = product[:4, :4, 1:5, 1:5], product[1:5, 1:5, 2:, 2:]
    torch.testing.assert_close(here, there, atol=1e-5, rtol=0)
    assert product[0, 0, 0, 0].item() == pytest.approx(16, abs=1e-5)  # half of the squares sum to 1 each
    assert product[0, 0].flatten().argmax() == 0


def test_without_positions_the_network_commutes_with_shifts_by_a_patch():
    net = randomised().double().eval()
    x, t, labels = inputs(dtype=torch.float64)

    def gap(rows: int, columns: int) -> float:
        shift = {"shifts": (rows, columns), "dims": (2, 3)}
        return (net(x.roll(**shift), t, labels) - net(x, t, labels).roll(**shift)).abs().max().item()

    assert gap(2, -4) > 1e-3  # the positions are seen
    net.position.zero_()
    assert gap(2, -4) < 1e-12
    assert gap(1, 0) > 1e-3  # not a whole patch


# --- a block


def test_block_is_the_adaln_zero_formula():
    torch.manual_seed(0)
    width, heads = 12, 3
    block = Block(width, heads, dropout=0.0).double()
    for p in block.parameters():
        nn.init.normal_(p, std=0.4)
    h, emb = torch.randn(2, 5, width, dtype=torch.float64), torch.randn(2, width, dtype=torch.float64)

    def norm(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        centred = h - h.mean(2, keepdim=True)
        return centred / (centred.square().mean(2, keepdim=True) + 1e-6).sqrt() * (1 + scale) + shift

    def attention(h: Tensor) -> Tensor:
        q, k, v = F.linear(h, block.attention.qkv.weight, block.attention.qkv.bias).split(width, dim=2)
        mixed = []
        for head in range(heads):
            own = slice(4 * head, 4 * head + 4)  # 4 features a head
            logits = torch.einsum("bid,bjd->bij", q[..., own], k[..., own]) / 2
            mixed.append(torch.einsum("bij,bjd->bid", logits.softmax(2), v[..., own]))
        return block.attention.out(torch.cat(mixed, 2))

    def mlp(h: Tensor) -> Tensor:
        h = block.mlp[0](h)
        return block.mlp[2](0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3))))

    shift1, scale1, gate1, shift2, scale2, gate2 = block.modulation(emb)[:, None].split(width, dim=2)
    expected = h + gate1 * attention(norm(h, shift1, scale1))
    expected = expected + gate2 * mlp(norm(expected, shift2, scale2))
    torch.testing.assert_close(block(h, emb), expected, atol=1e-12, rtol=0)


# --- labels and time


def test_no_labels_means_the_null_class():
    net = randomised().eval()
    x, t, labels = inputs()
    assert torch.equal(net(x, t), net(x, t, torch.full((4,), -1)))
    assert not torch.equal(net(x, t), net(x, t, labels))


def test_labels_act_on_their_own_row_only():
    net = randomised().eval()
    x, t, labels = inputs()
    dropped = labels.where(torch.arange(4) != 2, -1)
    change = (net(x, t, labels) - net(x, t, dropped)).abs().amax((1, 2, 3))
    assert (change > 1e-4).tolist() == [False, False, True, False]


def test_every_class_has_an_output_of_its_own():
    net = randomised().eval()
    x, t, _ = inputs()
    outputs = torch.stack([net(x[:1], t[:1], torch.tensor([label]))[0] for label in (-1, 0, 1, 2)]).flatten(1)
    assert torch.cdist(outputs, outputs)[~torch.eye(4, dtype=torch.bool)].min() > 1e-4


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


def test_unconditional_network_refuses_labels():
    x, t, labels = inputs()
    net = DiT(replace(TINY, classes=0))
    assert net(x, t).shape == x.shape
    with pytest.raises(ValueError, match="labels must be None"):
        net(x, t, labels)


# --- condition


def test_condition_is_seen_by_its_own_row_everywhere_in_the_image():
    net = randomised(replace(TINY, condition_channels=1)).eval()
    x, t, labels = inputs()
    condition = torch.randn(4, 1, 8, 8)
    changed = condition.clone()
    changed[1, 0, 0, 0] += 1
    change = (net(x, t, labels, condition) - net(x, t, labels, changed)).abs()
    assert (change.amax((1, 2, 3)) > 1e-4).tolist() == [False, True, False, False]
    assert change[1].amax(0)[4:, 4:].min() > 0  # attention carries it to the far corner


def test_a_condition_with_zero_weights_is_no_condition():
    plain, conditioned = randomised().eval(), randomised(replace(TINY, condition_channels=3)).eval()
    weights = plain.state_dict()
    added = torch.zeros(TINY.width, 3 * TINY.patch**2)
    conditioned.load_state_dict(weights | {"enter.weight": torch.cat([weights["enter.weight"], added], dim=1)})
    x, t, labels = inputs()
    out = conditioned(x, t, labels, torch.randn(4, 3, 8, 8))
    torch.testing.assert_close(out, plain(x, t, labels), atol=1e-5, rtol=0)


# --- training


def test_gradients_reach_every_parameter():
    net = randomised(replace(TINY, condition_channels=1))
    x, t, labels = inputs()
    labels[0] = -1
    (net(x, t, labels, torch.randn(4, 1, 8, 8)) - x).square().mean().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert net.embed_label.weight.grad.abs().amax(1).min() > 0  # rows of the null class and of all three others


def test_training_opens_every_branch_that_starts_shut():
    torch.manual_seed(0)
    net = DiT(TINY)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    x, t, labels = inputs()
    reached = []
    for _ in range(4):
        optimizer.zero_grad()
        (net(x, t, labels) - x).square().mean().backward()
        reached.append({n for n, p in net.named_parameters() if p.grad.any()})
        optimizer.step()
    assert reached[0] == {"leave.project.weight", "leave.project.bias"}
    assert reached[-1] == {n for n, _ in net.named_parameters()}


def test_dropout_acts_in_training_only():
    net = randomised(replace(TINY, dropout=0.5))
    x, t, labels = inputs()
    assert not torch.equal(net(x, t, labels), net(x, t, labels))
    net.eval()
    assert torch.equal(net(x, t, labels), net(x, t, labels))
    assert torch.equal(net(x, t, labels), randomised().eval()(x, t, labels))


def test_weights_come_from_the_seed_and_do_not_hold_the_positions():
    net, again = randomised(), randomised()
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))
    assert set(net.state_dict()) == {n for n, _ in net.named_parameters()}
    torch.manual_seed(5)
    other = DiT(TINY)
    other.load_state_dict(net.state_dict())
    assert torch.equal(other.eval()(*inputs()), net.eval()(*inputs()))


# --- dtypes, layouts, networks without memory


def test_float64_agrees_with_float32():
    net = randomised().eval()
    single = net(*inputs())
    x, t, labels = inputs()
    double = net.double()(x.double(), t.double(), labels)
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, atol=1e-4, rtol=0)


def test_bfloat16_autocast_returns_float32_close_to_full_precision():
    net = randomised()
    x, t, labels = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        half = net(x, t, labels)
        half.square().mean().backward()
    full = net(x, t, labels)
    assert half.dtype == torch.float32 and not torch.equal(half, full)
    assert (half - full).abs().max() < 0.05 * full.abs().max()
    assert all(p.grad.isfinite().all() for p in net.parameters())


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


def test_describes_itself_without_memory():
    config = CONFIGS["dit-b/1"]
    with torch.device("meta"):
        net = DiT(config)
        out = net(torch.empty(2, *config.shape), torch.empty(2), torch.zeros(2, dtype=torch.int64))
    assert out.shape == (2, *config.shape) and out.is_meta
    with FakeTensorMode():  # what the estimate of a recipe's memory uses
        out = DiT(config)(torch.empty(2, *config.shape), torch.empty(2))
        out.square().mean().backward()
    assert out.shape == (2, *config.shape)


# --- broken rules


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"patch": 3}, "patch must divide size into at least 2 x 2 patches, got patch 3 and size 8"),
        ({"patch": 8}, "patch must divide size into at least 2 x 2 patches"),
        ({"width": 18}, "width must be divisible by 4, got 18; try 20"),
        ({"heads": 3}, "heads must divide width, got heads 3 and width 16"),
        ({"depth": 0}, "depth must be at least 1"),
        ({"dropout": 1.0}, "dropout must lie in"),
        ({"classes": -1}, "classes must be at least 0"),
        ({"condition_channels": -1}, "condition_channels must be at least 0"),
    ],
)
def test_config_states_the_broken_rule(change, rule):
    with pytest.raises(ValueError, match=rule):
        replace(TINY, **change)


def test_config_knows_the_shape_of_an_image_and_the_number_of_tokens():
    assert TINY.shape == (2, 8, 8) and TINY.tokens == 16
    assert hash(TINY) == hash(replace(TINY))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"x": torch.zeros(4, 2, 16, 16)}, r"x must be \(B, 2, 8, 8\), got \(4, 2, 16, 16\)"),
        ({"t": torch.zeros(3)}, r"t must be .* \(4,\)"),
        ({"t": torch.zeros(4, dtype=torch.int64)}, "t must be floating point"),
        ({"labels": torch.tensor([0, 1, 2, 3])}, r"labels must lie in \[-1, 3\), got 3"),
        ({"labels": torch.tensor([0, -2, 0, 0])}, r"labels must lie in \[-1, 3\), got -2"),
        ({"labels": torch.zeros(4)}, "labels must be int64"),
        ({"condition": torch.zeros(4, 1, 8, 8)}, "condition must be None"),
    ],
)
def test_forward_states_the_broken_rule(change, rule):
    x, t, labels = inputs()
    with pytest.raises(ValueError, match=rule):
        DiT(TINY)(**({"x": x, "t": t, "labels": labels} | change))


@pytest.mark.parametrize(
    ("condition", "rule"),
    [
        (None, r"condition must be given, \(4, 1, 8, 8\)"),
        (torch.zeros(4, 2, 8, 8), r"condition must be .* \(4, 1, 8, 8\), got torch.float32 \(4, 2, 8, 8\)"),
        (torch.zeros(4, 1, 8, 8, dtype=torch.float64), r"condition must be torch.float32 .* got torch.float64"),
    ],
)
def test_conditioned_network_states_the_broken_rule(condition, rule):
    with pytest.raises(ValueError, match=rule):
        DiT(replace(TINY, condition_channels=1))(*inputs(), condition)
