"""Noise: the published bits of Philox, the distribution, independence, and that nothing but the address counts."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch
from scipy import stats

from pipeline.runtime.noise import _cos_sin, _minus_log, noise, philox, uniform


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # Random123, kat_vectors: zeros, ones, digits of pi
        ([0] * 4, (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([0xFFFFFFFF] * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_published_bits(counter, key, expected):
    bits = philox([torch.tensor([word]) for word in counter], key)
    assert " ".join(f"{int(word):08x}" for word in bits) == expected


def test_elementary_functions_against_long_doubles():
    edges = [0, 1, 2, 2**29 - 1, 2**29, 3 * 2**29, 2**31, 2**32 - 2**29, 2**32 - 1]
    bits = torch.cat([torch.tensor(edges), torch.randint(2**32, (20000,), generator=torch.Generator().manual_seed(0))])
    unit = (2 * bits.numpy().astype(np.longdouble) + 1) / np.longdouble(2) ** 33
    log = -np.log(unit)
    assert np.max(np.abs(_minus_log(bits).numpy() - log) / log) < 1e-12
    angle = 2 * unit * np.longdouble(math.pi)
    cos, sin = _cos_sin(bits)
    assert np.max(np.abs(cos.numpy() - np.cos(angle))) < 1e-12
    assert np.max(np.abs(sin.numpy() - np.sin(angle))) < 1e-12


def reference(seed: int, row: int, draw: int, stream: int, kind: int, block: int) -> list[int]:
    """One block of four words in plain Python integers, from the paper's definition and our layout of the address."""
    c, k = [block, row % 2**32, row >> 32 | draw << 8, stream | kind << 31], [seed % 2**32, seed >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b % 2**32, (a >> 32) ^ c[3] ^ k[1], a % 2**32]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


def test_values_against_plain_python():
    seed, row, draw, stream = 2**63 + 5, 2**39 + 2**31 + 1, 2**24 - 1, 2**31 - 1
    gaussian, even = [], []
    for block in range(3):
        a, b, c, d = ((2 * word + 1) / 2**33 for word in reference(seed, row, draw, stream, 0, block))
        for radius, angle in ((a, b), (c, d)):
            r = math.sqrt(-2 * math.log(radius))
            gaussian += [r * math.cos(2 * math.pi * angle), r * math.sin(2 * math.pi * angle)]
        even += [(2 * (word >> 9) + 1) / 2**24 for word in reference(seed, row, draw, stream, 1, block)]
    assert torch.equal(uniform(seed, row, draw, (10,), stream)[0], torch.tensor(even[:10]))
    torch.testing.assert_close(noise(seed, row, draw, (10,), stream)[0], torch.tensor(gaussian[:10]), rtol=2e-7, atol=0)


def test_bits_stay_what_they_are():
    """Banks are continued, and resumed runs compared bit for bit: on no device and in no version may these change."""
    values = noise(1, range(100), 2, (100,)).numpy().astype("<f4").tobytes()
    assert hashlib.sha256(values).hexdigest()[:16] == "79b7addcf34886d2"


def test_only_the_address_counts():
    shape = (3, 5, 7)  # 105 values: no multiple of Philox's block of 4
    rows, draws = torch.arange(400) % 57 * 12345678901 % 2**40, torch.arange(400) % 9
    whole = noise(11, rows, draws, shape)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(1))
    for size in (1, 7, 399):
        parts = torch.cat([noise(11, rows[i], draws[i], shape) for i in order.split(size)])
        assert torch.equal(parts, whole[order])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert torch.equal(noise(11, rows, draws, shape), whole)
    finally:
        torch.set_num_threads(threads)


def test_a_large_item_spans_no_chunk_boundary_visibly():
    large = noise(0, range(2), 0, (100_000,))  # more blocks than are computed at once
    assert torch.equal(large[1, :1000], noise(0, 1, 0, (1000,))[0])


def test_forms_of_addresses():
    assert torch.equal(noise(1, range(4, 10, 2), 3, ()), noise(1, torch.tensor([4, 6, 8]), torch.tensor([3]), ()))
    assert noise(1, 5, range(3), (2, 2)).shape == (3, 2, 2)
    assert noise(1, range(0), 0, (2,)).shape == (0, 2)
    assert uniform(1, torch.tensor([1, 2], dtype=torch.int32), 0, (8,)).dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ((-1, 0, 0), "seed"),
        ((2**64, 0, 0), "seed"),
        ((0, 2**40, 0), "row"),
        ((0, torch.tensor([3, -1]), 0), "row"),
        ((0, 0, 2**24), "draw"),
        ((0, torch.tensor([0.5]), 0), "row"),
        ((0, torch.zeros(2, 2, dtype=torch.int64), 0), "row"),
    ],
)
def test_addresses_out_of_range_are_refused(arguments, rule):
    with pytest.raises(ValueError, match=rule):
        noise(*arguments, (2,))
    with pytest.raises(ValueError, match="stream"):
        noise(0, 0, 0, (2,), stream=2**31)


def test_rows_on_the_cpu_are_checked_there_and_no_device_is_waited_for():
    """Tensors of the device "meta" have no values: reading one raises."""
    assert noise(0, range(3), torch.arange(3), (2, 5), device="meta").shape == (3, 2, 5)
    with pytest.raises(ValueError, match="row"):
        noise(0, torch.tensor([0, -1]), 0, (2,), device="meta")


def test_gaussian_distribution():
    values = noise(3, range(2000), 0, (256,)).double().flatten().numpy()  # 512,000
    n = len(values)
    assert abs(values.mean()) < 4 / n**0.5
    assert abs(values.var() - 1) < 4 * (2 / n) ** 0.5
    assert abs((values**3).mean()) < 4 * (15 / n) ** 0.5
    assert abs((values**4).mean() - 3) < 4 * (96 / n) ** 0.5
    assert stats.kstest(values, "norm").pvalue > 1e-3
    assert 4.2 < np.abs(values).max() < 6.77  # the tail is there


def test_uniform_distribution():
    values = uniform(3, range(2000), 0, (256,)).double().flatten().numpy()
    assert stats.kstest(values, "uniform").pvalue > 1e-3
    assert 0 < values.min() < 1e-4 and 1 - 1e-4 < values.max() < 1


def test_each_part_of_the_address_gives_independent_noise():
    base = noise(5, range(64), 0, (1024,))
    others = {
        "seed": noise(6, range(64), 0, (1024,)),
        "high half of the seed": noise(5 + 2**32, range(64), 0, (1024,)),
        "row": noise(5, range(64, 128), 0, (1024,)),
        "high bits of the row": noise(5, range(2**32, 2**32 + 64), 0, (1024,)),
        "draw": noise(5, range(64), 1, (1024,)),
        "stream": noise(5, range(64), 0, (1024,), stream=1),
        "uniform": (uniform(5, range(64), 0, (1024,)) - 0.5) * 12**0.5,
        "neighbouring element": base.roll(1, 1),
        "element of the next block": base.roll(4, 1),
    }
    for what, other in others.items():
        for f in (lambda v: v, torch.square):  # values, and their sizes, which Box-Muller's pairs share
            correlation = torch.corrcoef(torch.stack([f(base).flatten(), f(other).flatten()]))[0, 1]
            assert abs(float(correlation)) < 4.5 / 2**8, what  # n = 2^16
