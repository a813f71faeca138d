"""Decoding: every schedule solves the same system, guidance does what its formula says, and calibration chooses."""

import json
from dataclasses import replace

import pytest
import torch

from models.patches import patchify
from models.tarflow import (
    DecodingWork,
    GaussSeidelJacobi,
    Guidance,
    Jacobi,
    Sequential,
    TarFlow,
    TarFlowConfig,
    calibrate,
    decode,
    schedule_from_dict,
)
from models.tarflow._decoding import _settled
from models.tarflow._token import reads_tokens
from tests.models.test_tarflow import LABELS, SMALL, images, random_flow

SCHEDULES = [
    Jacobi(tolerance=0),
    Jacobi(tolerance=0, start="zeros"),
    Jacobi(tolerance=0, max_iterations=15),
    GaussSeidelJacobi(segments=4, tolerance=0),
    GaussSeidelJacobi(segments=99, tolerance=0, start="zeros"),
]


def uncached(flow, z, labels):
    """The inverse by the letter: the whole network again for each token."""
    tokens = z.shape[1]
    for index in reversed(range(flow.config.blocks)):
        block, z = flow.blocks[index], flow.in_order(z, index)
        x = z.clone()
        for i in range(1, tokens):
            log_scale, shift = block.predict(x[:, :-1], block.condition(labels))
            x[:, i] = block.invert(z[:, i], log_scale[:, i - 1], shift[:, i - 1])
        z = flow.in_order(x, index)
    return z


@pytest.mark.parametrize("layers", [2, (1, 3, 1, 2)])
def test_cached_decoding_equals_uncached(layers):
    flow, z = random_flow(replace(SMALL, layers=layers)), torch.randn(4, 2, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        expected = uncached(flow, patchify(z, 2), LABELS)
    assert (patchify(decode(flow, z, LABELS), 2) - expected).abs().max() < 1e-10


@pytest.mark.parametrize("volume_preserving", [False, True])
@pytest.mark.parametrize("labels", [None, LABELS])
@pytest.mark.parametrize(
    "guided",
    [{}, {"guidance": Guidance(1.5, annealed=True)}, {"guidance": Guidance(1.0), "attention_temperature": 1.5}],
)
def test_reading_token_by_token_equals_the_block(monkeypatch, volume_preserving, labels, guided):
    flow, z = random_flow(replace(SMALL, volume_preserving=volume_preserving)), torch.randn(4, 2, 8, 8).double()
    with monkeypatch.context() as patch:
        patch.setattr(flow.block(0).__class__, "predict", None)  # else both decodings could take the same way
        by_token = decode(flow, z, labels, **guided)
    monkeypatch.setattr("models.tarflow._decoding.reads_tokens", lambda block, rows: False)
    assert (by_token - decode(flow, z, labels, **guided)).abs().max() < 1e-12


@pytest.mark.parametrize(("intel", "rows", "expected"), [(True, 512, True), (False, 512, False), (False, 4, True)])
def test_many_rows_are_multiplied_by_the_faster_library(monkeypatch, intel, rows, expected):
    monkeypatch.setattr("models.tarflow._token.INTEL", intel)
    monkeypatch.setattr("models.tarflow._token.HAS_ONEDNN", True)
    block = random_flow().block(0)
    assert reads_tokens(block, rows) == expected
    with torch.autocast("cpu", torch.bfloat16):
        assert not reads_tokens(block, rows)


@pytest.mark.parametrize("guidance", [None, Guidance(1.5, annealed=True)])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_every_schedule_run_to_its_end_equals_sequential(schedule, guidance):
    flow, z = random_flow(replace(SMALL, layers=(1, 3, 1, 2))), torch.randn(4, 2, 8, 8, dtype=torch.float64)
    expected = decode(flow, z, LABELS, guidance=guidance)
    assert (decode(flow, z, LABELS, schedule, guidance) - expected).abs().max() < 1e-10


@pytest.mark.parametrize(
    ("update", "final"),
    [([1, 0, 0, 0], 1), ([0, 0, 1, 0], 2), ([0, 0, 0, 0], 4), ([0, float("nan"), 0, 0], 1), ([1], 1)],
)
def test_a_token_that_moved_makes_what_comes_after_it_open(update, final):
    update = torch.tensor(update, dtype=torch.float32).view(1, -1, 1)
    assert _settled(torch.zeros_like(update), update, 0.0) == final


@pytest.mark.parametrize(
    "schedule",
    [Jacobi(0.0, start="zeros"), Jacobi(1e-3, start="zeros"), GaussSeidelJacobi(2, 0.0, start="zeros")],
    ids=str,
)
def test_tokens_that_stayed_at_a_wrong_guess_are_computed_again(schedule):
    """All but the second latent are zero, as the guess is: it is right for most tokens until the second one moves."""
    torch.manual_seed(0)
    flow = TarFlow(
        TarFlowConfig(channels=1, size=4, patch=1, width=8, blocks=1, layers=1, head_dim=8, log_scale_bound=None)
    )
    block = flow.block(0)
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            if "norm" not in name:
                parameter.normal_(std=0.7) if parameter.ndim > 1 else parameter.zero_()
        block.position.zero_()
        block.head.weight[0].zero_()  # no scale
    z = torch.zeros(1, 1, 4, 4)
    z[0, 0, 0, 1] = 1.0
    assert (decode(flow, z, schedule=schedule) - decode(flow, z)).abs().max() < 0.02


@pytest.mark.parametrize("schedule", [Jacobi(1e-4), GaussSeidelJacobi(3, 1e-3)], ids=str)
def test_a_tolerance_saves_calls_and_costs_little(schedule):
    flow, z = random_flow(std=0.05), torch.randn(4, 2, 8, 8, dtype=torch.float64)
    work = DecodingWork()
    x = decode(flow, z, LABELS, schedule, work=work)
    assert (decode(flow, z, LABELS) - x).abs().max() < 1e-3
    assert [w.block for w in work.blocks] == [3, 2, 1, 0]
    assert all(w.calls < 15 for w in work.blocks)


def test_work_counts_calls_and_tokens():
    flow, z = random_flow(), torch.randn(2, 2, 8, 8, dtype=torch.float64)
    counted = {}
    for schedule in (Sequential(), Jacobi(0), Jacobi(0, max_iterations=3), GaussSeidelJacobi(3, 0)):
        work = DecodingWork()
        decode(flow, z, schedule=schedule, work=work)
        counted[schedule] = next((w.calls, w.tokens) for w in work.blocks)
    # A token that is final is not computed again: 15 + 14 + ... + 1 tokens, not 15 * 15.
    assert list(counted.values()) == [(15, 15), (15, 120), (3, 15 + 14 + 13), (15, 3 * 15)]


def test_a_large_batch_is_decoded_in_slices_that_do_not_show(monkeypatch):
    flow, z = random_flow(), torch.randn(10, 2, 8, 8, dtype=torch.float64)
    labels = torch.arange(10) % 4 - 1
    work = DecodingWork()
    whole = decode(flow, z, labels, guidance=Guidance(0.5))
    monkeypatch.setattr("models.tarflow._decoding.ROWS_AT_ONCE", 8)
    monkeypatch.setattr("models.tarflow._decoding.BYTES_AT_ONCE", 0)
    sliced = decode(flow, z, labels, guidance=Guidance(0.5), work=work)
    torch.testing.assert_close(sliced, whole, rtol=0, atol=1e-12)
    assert [(w.block, w.calls, w.tokens) for w in work.blocks] == [(k, 15, 15) for k in (3, 2, 1, 0)]
    z[9] = 1.7e308  # almost the largest number, in the second row of the third slice
    with pytest.raises(FloatingPointError, match="row 9 overflow"):
        decode(flow, z, labels, guidance=Guidance(0.5))
    assert decode(flow, z[:0], labels[:0]).shape == (0, 2, 8, 8)


def test_schedules_may_differ_by_block():
    flow, z = random_flow(), torch.randn(2, 2, 8, 8, dtype=torch.float64)
    schedule = (Jacobi(0, max_iterations=1), Sequential(), Sequential(), Sequential())
    work = DecodingWork()
    decode(flow, z, schedule=schedule, work=work)
    assert {w.block: w.calls for w in work.blocks} == {0: 1, 1: 15, 2: 15, 3: 15}


@pytest.mark.parametrize("schedule", [Sequential(), *SCHEDULES], ids=str)
def test_schedules_go_through_json(schedule):
    assert schedule_from_dict(json.loads(json.dumps(schedule.to_dict()))) == schedule


# --- guidance


def test_guidance_of_zero_is_none():
    flow, z = random_flow(), torch.randn(4, 2, 8, 8, dtype=torch.float64)
    for annealed in (False, True):
        assert torch.equal(decode(flow, z, LABELS, guidance=Guidance(0.0, annealed)), decode(flow, z, LABELS))


def test_guidance_without_labels_needs_an_attention_temperature():
    flow, z = random_flow(), torch.randn(2, 2, 8, 8, dtype=torch.float64)
    assert torch.equal(decode(flow, z, guidance=Guidance(2.0)), decode(flow, z))
    assert not torch.allclose(decode(flow, z, guidance=Guidance(2.0), attention_temperature=1.5), decode(flow, z))


def test_guidance_leaves_rows_with_a_dropped_label_alone():
    flow, z = random_flow(), torch.randn(4, 2, 8, 8, dtype=torch.float64)
    change = (decode(flow, z, LABELS, guidance=Guidance(2.0)) - decode(flow, z, LABELS)).abs().amax(dim=(1, 2, 3))
    assert change.gt(1e-6).tolist() == [True, True, False, True]
    assert change[2] < 1e-12


@pytest.mark.parametrize("annealed", [False, True])
def test_guidance_follows_its_formula(annealed):
    flow, labels = random_flow(replace(SMALL, blocks=1), std=0.2), LABELS[:2]
    block, z = flow.blocks[0], torch.randn(2, 2, 8, 8, dtype=torch.float64)
    x = patchify(decode(flow, z, labels, guidance=Guidance(1.5, annealed)), 2)
    strong = block.predict(x[:, :-1], block.condition(labels))
    weak = block.predict(x[:, :-1], block.condition(None))
    weight = 1.5 * (torch.arange(1, 16, dtype=torch.float64)[:, None] / 15 if annealed else 1)
    log_scale, shift = (s + weight * (s - w) for s, w in zip(strong, weak, strict=True))
    assert (x[:, 1:] - block.invert(patchify(z, 2)[:, 1:], log_scale, shift)).abs().max() < 1e-10


def test_attention_temperature_divides_the_logits_of_the_weak_prediction():
    flow = random_flow(std=0.3)
    block, tokens = flow.blocks[0], torch.randn(2, 15, 8, dtype=torch.float64)
    _, shift = block.predict(tokens, None, sharpness=torch.full((2, 1, 1, 1), 0.5, dtype=torch.float64))
    for layer in block.layers:  # halving the queries halves the logits
        width = layer.attention.qkv.in_features
        layer.attention.qkv.weight.data[:width] *= 0.5
        layer.attention.qkv.bias.data[:width] *= 0.5
    torch.testing.assert_close(block.predict(tokens, None)[1], shift)


# --- calibration


def test_calibration_finds_schedules_that_decode_well():
    flow, z = random_flow(std=0.05), torch.randn(4, 2, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        flow.blocks[2].position.mul_(30)  # one block much harder than the others
    schedules = calibrate(flow, z, LABELS, tolerance=1e-3, call_cost=5.0)
    assert schedules == calibrate(flow, z, LABELS, tolerance=1e-3, call_cost=5.0)
    assert (decode(flow, z, LABELS, schedules) - decode(flow, z, LABELS)).abs().max() < 0.1
    assert len(schedules) == 4 and any(s != Sequential() for s in schedules)


def test_calibration_weighs_calls_against_tokens():
    flow, z = random_flow(std=0.05), torch.randn(4, 2, 8, 8, dtype=torch.float64)
    assert calibrate(flow, z, tolerance=0, call_cost=0) == (Sequential(),) * 4
    assert all(isinstance(s, Jacobi) for s in calibrate(flow, z, tolerance=1e-2, call_cost=1e6))


# --- surroundings and errors


def test_decoding_follows_autocast_but_keeps_the_affine_part_in_float32():
    flow, z = random_flow(dtype=torch.float32), torch.randn(2, 2, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        x = decode(flow, z)
    assert x.dtype == torch.float32
    assert 1e-5 < (x - decode(flow, z)).abs().max() < 0.5


def test_decoding_does_not_mutate_its_input():
    flow, z = random_flow(), torch.randn(4, 2, 8, 8, dtype=torch.float64)
    before = z.clone()
    for schedule in (Sequential(), Jacobi(1e-3), GaussSeidelJacobi(2)):
        decode(flow, z, LABELS, schedule, Guidance(1.0))
    calibrate(flow, z, LABELS, call_cost=1)
    assert torch.equal(z, before)


def test_decoding_refuses_what_does_not_fit():
    flow, z = random_flow(), images()
    with pytest.raises(ValueError, match="for each of 4 blocks, got 2"):
        decode(flow, z, schedule=(Sequential(), Sequential()))
    with pytest.raises(ValueError, match="only acts through guidance"):
        decode(flow, z, attention_temperature=2.0)
    with pytest.raises(ValueError, match="must be positive, got 0"):
        decode(flow, z, guidance=Guidance(1.0), attention_temperature=0)
    with pytest.raises(ValueError, match="dtype of the flow's weights"):
        decode(flow, z.float())


def test_a_decoding_that_is_not_finite_says_where():
    flow, z = random_flow(), images()
    with torch.no_grad():
        flow.blocks[2].head.bias[-1] = torch.inf
    with pytest.raises(FloatingPointError, match="row 0 overflowing in block 2"):
        decode(flow, z)
    z[3, 0, 0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="in row 3"):
        decode(flow, z)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Jacobi(tolerance=-1), "tolerance must be at least 0"),
        (lambda: Jacobi(max_iterations=0), "max_iterations must be at least 1"),
        (lambda: Jacobi(start="noise"), "start must be 'latent' or 'zeros'"),
        (lambda: GaussSeidelJacobi(segments=0), "segments must be at least 1"),
        (lambda: Guidance(-1.0), "at least 0, got -1"),
        (lambda: schedule_from_dict({"kind": "jacobbi"}), "must be one of sequential, jacobi"),
        (lambda: schedule_from_dict({"kind": "jacobi", "segments": 3}), "segments"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
