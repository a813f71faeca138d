"""The DiT: the architecture of the papers and the formulas of its layers; what it shares with the U-Net is in
test_velocity."""

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
from tests.models.networks import TINY_DIT as TINY
from tests.models.networks import inputs, randomised

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
    net, (x, t, labels) = DiT(TINY), inputs(TINY)
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
    net = randomised(TINY).double().eval()
    x, t, labels = inputs(TINY, dtype=torch.float64)

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


# --- a network of them


def test_a_condition_is_seen_everywhere_in_its_image():
    net = randomised(replace(TINY, condition_channels=1)).eval()
    x, t, labels = inputs(TINY)
    condition = torch.randn(4, 1, 8, 8)
    changed = condition.clone()
    changed[1, 0, 0, 0] += 1
    change = (net(x, t, labels, condition) - net(x, t, labels, changed)).abs()
    assert change[1].amax(0)[4:, 4:].min() > 0  # attention carries it to the far corner


def test_training_opens_every_branch_that_starts_shut():
    torch.manual_seed(0)
    net = DiT(TINY)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    x, t, labels = inputs(TINY)
    reached = []
    for _ in range(4):
        optimizer.zero_grad()
        (net(x, t, labels) - x).square().mean().backward()
        reached.append({n for n, p in net.named_parameters() if p.grad.any()})
        optimizer.step()
    assert reached[0] == {"leave.project.weight", "leave.project.bias"}
    assert reached[-1] == {n for n, _ in net.named_parameters()}


def test_weights_come_from_the_seed_and_do_not_hold_the_positions():
    net, again = randomised(TINY), randomised(TINY)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))
    assert set(net.state_dict()) == {n for n, _ in net.named_parameters()}
    torch.manual_seed(5)
    other = DiT(TINY)
    other.load_state_dict(net.state_dict())
    assert torch.equal(other.eval()(*inputs(TINY)), net.eval()(*inputs(TINY)))


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
    ],
)
def test_config_states_the_broken_rule(change, rule):
    with pytest.raises(ValueError, match=rule):
        replace(TINY, **change)


def test_config_knows_the_shape_of_an_image_and_the_number_of_tokens():
    assert TINY.shape == (2, 8, 8) and TINY.tokens == 16
    assert hash(TINY) == hash(replace(TINY))
