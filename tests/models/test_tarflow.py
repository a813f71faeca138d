"""The map itself: exact, causal, bounded, the identity when untrained, and full precision when it encodes."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models.tarflow import CONFIGS, TarFlow, TarFlowConfig, decode, full_precision

SMALL = TarFlowConfig(channels=2, size=8, patch=2, width=32, blocks=4, layers=2, head_dim=16, classes=3)


def random_flow(config: TarFlowConfig = SMALL, std: float = 0.1, dtype: torch.dtype = torch.float64) -> TarFlow:
    """A flow with every parameter drawn at random, so that no part of it is idle."""
    torch.manual_seed(0)
    flow = TarFlow(config).to(dtype)
    for p in flow.parameters():
        torch.nn.init.normal_(p, std=std)
    return flow.eval()


def images(config: TarFlowConfig = SMALL, batch: int = 4, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(batch, config.channels, config.size, config.size, dtype=dtype) * 2 - 1


def jacobian(flow: TarFlow, x: Tensor, labels: Tensor | None = None) -> Tensor:
    """(dims, dims): dz/dx of the one image (1, C, H, W)."""
    dims = x.numel()
    return torch.autograd.functional.jacobian(lambda x: flow(x, labels)[0], x).reshape(dims, dims)


LABELS = torch.tensor([0, 2, -1, 1])


# --- exactness


@pytest.mark.parametrize("volume_preserving", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_decoding_inverts_encoding(dtype, tolerance, volume_preserving):
    flow = random_flow(replace(SMALL, volume_preserving=volume_preserving), dtype=dtype)
    x = images(dtype=dtype)
    z = flow.encode(x, LABELS)
    assert z.dtype == dtype
    assert (z - x).abs().max() > 0.1
    assert (decode(flow, z, LABELS) - x).abs().max() <= tolerance


@pytest.mark.parametrize("volume_preserving", [False, True])
@pytest.mark.parametrize("bound", [4.0, None])
def test_log_determinant_is_that_of_the_jacobian(bound, volume_preserving):
    config = TarFlowConfig(1, 4, 2, 16, 3, 1, head_dim=8, log_scale_bound=bound, volume_preserving=volume_preserving)
    flow, x = random_flow(config, std=0.15), images(config, batch=3)
    _, logdet = flow(x)
    for row in range(3):
        _, expected = torch.linalg.slogdet(jacobian(flow, x[row : row + 1]))
        assert logdet[row].item() == pytest.approx(expected.item(), abs=1e-8)
    assert logdet.abs().min() > 0.01


def test_log_prob_is_the_change_of_variables():
    flow, x = random_flow(), images()
    z, logdet = flow(x, LABELS)
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
    expected = normal.log_prob(z).sum(dim=(1, 2, 3)) + logdet
    torch.testing.assert_close(flow.log_prob(x, LABELS), expected)


def test_a_volume_preserving_flow_has_a_learned_gaussian_density():
    config = TarFlowConfig(1, 4, 2, 16, 2, 1, head_dim=8, volume_preserving=True)
    flow = TarFlow(config).double()  # untrained blocks are the identity: p(x) is the prior
    torch.nn.init.normal_(flow.prior_log_variance)
    x = images(config)
    normal = torch.distributions.Normal(0.0, torch.exp(0.5 * flow.prior_log_variance))
    torch.testing.assert_close(flow.log_prob(x), normal.log_prob(x).sum(dim=(1, 2, 3)))


# --- causality


@pytest.mark.parametrize("index", [0, 1])
def test_a_block_is_triangular_over_tokens_and_diagonal_within_them(index):
    flow = random_flow()
    tokens = torch.randn(1, 16, 8, dtype=torch.float64)
    block = flow.blocks[index]

    def transform(tokens: Tensor) -> Tensor:
        return flow.in_order(block(flow.in_order(tokens, index), None)[0], index)

    full = torch.autograd.functional.jacobian(transform, tokens).squeeze()  # (T, D, T, D)
    size = full.abs().amax(dim=(1, 3))  # (T, T), output token by input token
    ahead = size.triu(1) if index == 0 else size.tril(-1)
    behind = size.tril(-1) if index == 0 else size.triu(1)
    assert ahead.max() == 0
    assert (behind > 0).sum() == 16 * 15 / 2
    within = torch.stack([full[t, :, t] for t in range(16)])  # (T, D, D)
    assert (within - torch.diag_embed(torch.diagonal(within, dim1=1, dim2=2))).abs().max() == 0


@pytest.mark.parametrize("index", [0, 1])
def test_the_first_token_passes_a_block_unchanged(index):
    flow = random_flow()
    tokens = torch.randn(2, 16, 8, dtype=torch.float64)
    out = flow.in_order(flow.blocks[index](flow.in_order(tokens, index), None)[0], index)
    unchanged = [bool((out[:, t] == tokens[:, t]).all()) for t in range(16)]
    assert unchanged == [t == (0 if index == 0 else 15) for t in range(16)]


# --- initialisation, size, bounds


@pytest.mark.parametrize("volume_preserving", [False, True])
def test_an_untrained_flow_is_exactly_the_identity(volume_preserving):
    flow, x = TarFlow(replace(SMALL, volume_preserving=volume_preserving)), images(dtype=torch.float32)
    z, logdet = flow(x, LABELS)
    assert torch.equal(z, x)
    assert torch.equal(logdet, torch.zeros(4))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("imagenet64-uncond", 460_142_784), ("imagenet64-cond", 466_286_784), ("afhq256-cond", 463_481_856)],
)
def test_published_configurations_have_the_published_size(name, parameters):
    with torch.device("meta"):
        flow = TarFlow(CONFIGS[name])
    assert sum(p.numel() for p in flow.parameters()) == parameters


@pytest.mark.parametrize("std", [0.05, 0.3, 1.0])
def test_no_random_initialisation_overflows(std):
    config = TarFlowConfig(channels=1, size=8, patch=2, width=64, blocks=8, layers=2)
    flow, x = random_flow(config, std=std, dtype=torch.float32), images(config, dtype=torch.float32)
    z, logdet = flow(x)
    assert torch.isfinite(z).all() and torch.isfinite(logdet).all()


def test_the_scale_of_a_block_is_bounded():
    block = random_flow().blocks[0]
    a = torch.tensor([-1e6, -1e-4, 0.0, 1e-4, 1e6], dtype=torch.float64)
    torch.testing.assert_close(block.bounded(a), torch.tensor([-4, -1e-4, 0, 1e-4, 4], dtype=torch.float64))


# --- labels


def test_a_dropped_label_is_the_unconditional_path_in_both_directions():
    flow, x = random_flow(), images()
    dropped = torch.full((4,), -1)
    z = flow.encode(x, dropped)
    torch.testing.assert_close(z, flow.encode(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(decode(flow, z, dropped), decode(flow, z), rtol=0, atol=1e-12)
    assert (decode(flow, z, dropped) - x).abs().max() < 1e-10
    assert (flow.encode(x, LABELS) - z).abs().amax(dim=(1, 2, 3)).gt(1e-3).tolist() == [True, True, False, True]


# --- surroundings


def test_encoding_is_in_full_precision_whatever_the_surroundings():
    flow, x = random_flow(dtype=torch.float32), images(dtype=torch.float32)
    expected = flow.encode(x, LABELS)
    with torch.autocast("cpu", torch.bfloat16):
        guarded = flow.encode(x, LABELS)
        naive, logdet = flow(x, LABELS)
    assert torch.equal(guarded, expected)
    assert naive.dtype == logdet.dtype == torch.float32
    assert (naive - expected).abs().max() > 1e-4  # else this would test nothing


def test_dropout_acts_in_training_only():
    flow, x = random_flow(replace(SMALL, dropout=0.5)).train(), images()
    assert not torch.equal(flow(x)[0], flow(x)[0])
    assert torch.equal(flow.encode(x), flow.encode(x))
    z = flow.encode(x)
    assert (decode(flow, z) - x).abs().max() < 1e-10
    with full_precision(flow):
        assert torch.equal(flow(x)[0], z)
    assert flow.training and flow.blocks[0].training


def test_full_precision_restores_the_settings_it_found():
    flow, matmul = random_flow(), torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32"
    try:
        with full_precision(flow):
            assert matmul.fp32_precision == "ieee"
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before


def test_a_latent_does_not_depend_on_the_rows_beside_it():
    flow, x = random_flow(dtype=torch.float32), images(batch=300, dtype=torch.float32)
    labels = torch.arange(300) % 4 - 1
    together = flow.encode(x, labels)
    apart = torch.cat([flow.encode(x[i : i + 7], labels[i : i + 7]) for i in range(0, 300, 7)])
    assert (together - apart).abs().max() <= 1e-5
    assert flow.encode(x[:0], labels[:0]).shape == (0, 2, 8, 8)


def test_the_fast_linear_layer_has_the_gradients_of_the_plain_one():
    # A batch large enough for oneDNN, against float64, which never goes there.
    config = replace(SMALL, width=64, blocks=2)
    exact, x = random_flow(config), images(batch=256)
    labels = torch.arange(256) % 4 - 1
    fast = TarFlow(config)
    fast.load_state_dict(exact.state_dict())
    for flow, batch in ((exact, x), (fast, x.float())):
        flow.log_prob(batch, labels).mean().backward()
    for (name, p), q in zip(exact.named_parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(q.grad.double(), p.grad, rtol=1e-3, atol=1e-4, msg=name)


def test_nothing_mutates_its_input():
    flow, x = random_flow(), images()
    before, labels = x.clone(), LABELS.clone()
    flow(x, labels), flow.encode(x, labels), flow.log_prob(x, labels), decode(flow, x, labels)
    assert torch.equal(x, before) and torch.equal(labels, LABELS)


# --- errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch": 3}, "patch must divide size"),
        ({"patch": 8}, "at least 2 x 2"),
        ({"head_dim": 24}, "head_dim must divide width"),
        ({"layers": 0}, "layers must be one positive integer"),
        ({"layers": (1, 2, 1)}, "one for each of 4 blocks"),
        ({"layers": (1, 2, 1, 0)}, "layers must be one positive integer"),
        ({"classes": -1}, "classes must be at least 0, got -1"),
        ({"dropout": 1.0}, "dropout must lie in"),
        ({"log_scale_bound": 40.0}, "lower log_scale_bound"),
    ],
)
def test_a_config_that_does_not_fit_together_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)


@pytest.mark.parametrize("method", ["forward", "encode", "log_prob"])
def test_inputs_that_do_not_fit_are_refused(method):
    flow, x = random_flow(), images()
    call = getattr(flow, method)
    with pytest.raises(ValueError, match=r"must be \(B, 2, 8, 8\)"):
        call(x[:, :1])
    with pytest.raises(ValueError, match=r"dtype of the flow's weights, torch.float64, got torch.float32"):
        call(x.float())
    with pytest.raises(ValueError, match=r"int64 of shape \(4,\)"):
        call(x, LABELS[:3])
    with pytest.raises(ValueError, match="got -1 to 3"):
        call(x, torch.tensor([0, 3, -1, 1]))
    with pytest.raises(ValueError, match="labels must be None"):
        getattr(random_flow(replace(SMALL, classes=0)), method)(x, LABELS)


def test_an_encoding_that_is_not_finite_says_where():
    flow, x = random_flow(), images()
    x[2, 0, 0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="image in row 2"):
        flow.encode(x)
    with torch.no_grad():
        flow.blocks[1].head.bias[-1] = torch.inf
    with pytest.raises(FloatingPointError, match="row 0 overflowing in block 1"):
        flow.encode(images())
