"""Noise that is a function, not a stream: N(0, I) and U(0, 1) addressed by (seed, stream, row, draw, element).

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11) turns an address into 128 random
bits, and Box-Muller turns those into Gaussians. No state, so nothing depends on the batch size, the order or the number
of workers.

Everything below consists of integer operations and of float64 +, -, *, / and sqrt, which IEEE 754 rounds in exactly one
way. torch.log and torch.sin are not used: their last bit may differ between devices, and between the body and the tail
of a vector.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ROW_BITS, DRAW_BITS, STREAM_BITS = 40, 24, 31  # and 32 for the block of 4 values in an item, 1 for the kind: 128
_GAUSSIAN, _UNIFORM = 0, 1  # the counter's top bit: the two kinds never share their bits
_MASK = 0xFFFFFFFF
_MULTIPLIER = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_CHUNK_BLOCKS = {"cpu": 1 << 14, "cuda": 1 << 21}  # blocks of 4 values in flight: fits the cache of a core; fills a GPU


def noise(
    seed: int,
    rows: Tensor | range | int,
    draws: Tensor | range | int,
    shape: tuple[int, ...],
    stream: int = 0,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Standard Gaussian noise (N, *shape) float32, one item for each pair of `rows` and `draws`.

    `rows` (N,) below 2^40 and `draws` (N,) below 2^24 are integers and broadcast; `seed` has 64 bits, `stream` 31: give
    each use of noise a different one. An item depends on (seed, stream, its row, its draw) only. Magnitudes stay below
    6.77, because the radius has 32 bits. Raises ValueError where an address is out of range.
    """
    return _fill(seed, rows, draws, shape, stream, device, _GAUSSIAN)


def uniform(
    seed: int,
    rows: Tensor | range | int,
    draws: Tensor | range | int,
    shape: tuple[int, ...],
    stream: int = 0,
    device: str | torch.device = "cpu",
) -> Tensor:
    """As `noise`, but uniform: odd multiples of 2^-24, so never 0 nor 1. Independent of `noise` at the same address."""
    return _fill(seed, rows, draws, shape, stream, device, _UNIFORM)


def philox(counter: list[Tensor], key: tuple[int, int]) -> list[Tensor]:
    """Ten rounds of Philox4x32. `counter`, like the result: four int64 tensors of values below 2^32; they broadcast."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # int64 products wrap modulo 2^64, so all 64 bits are right; >> extends the sign, which the mask removes again.
        p0, p1 = c0 * _MULTIPLIER[0], c2 * _MULTIPLIER[1]
        c0 = (p1 >> 32).bitwise_xor(c1).bitwise_xor_(k0).bitwise_and_(_MASK)
        c2 = (p0 >> 32).bitwise_xor(c3).bitwise_xor_(k1).bitwise_and_(_MASK)
        c1, c3 = p1, p0  # their high halves go with the next mask
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return [c0, c1 & _MASK, c2, c3 & _MASK]


def _fill(
    seed: int,
    row_numbers: Tensor | range | int,
    draw_numbers: Tensor | range | int,
    shape: tuple[int, ...],
    stream: int,
    device: str | torch.device,
    kind: int,
) -> Tensor:
    device = torch.device(device)
    rows, draws = torch.broadcast_tensors(
        _addresses("row", row_numbers, ROW_BITS, device), _addresses("draw", draw_numbers, DRAW_BITS, device)
    )
    _check("seed", seed, 64)
    _check("stream", stream, STREAM_BITS)
    key, top = (seed & _MASK, seed >> 32), stream | kind << STREAM_BITS
    per_row = math.prod(shape)
    blocks = -(-per_row // 4)
    block = torch.arange(blocks, device=device)[None, :]
    out = torch.empty(len(rows), per_row, dtype=torch.float32, device=device)
    at_once = max(1, _CHUNK_BLOCKS.get(device.type, 1 << 14) // max(1, blocks))
    for start in range(0, len(rows), at_once):
        row = rows[start : start + at_once, None]  # (n, 1)
        draw = draws[start : start + at_once, None]
        counter = [block, row & _MASK, row >> 32 | draw << 8, torch.full_like(row, top)]
        bits = philox(counter, key)  # 4 of (n, blocks)
        values = _box_muller(bits) if kind == _GAUSSIAN else [_unit(b) for b in bits]
        chunk = torch.stack(values, dim=-1).flatten(1)  # (n, 4 * blocks), float64
        out[start : start + at_once] = chunk[:, :per_row]
    return out.view(len(rows), *shape)


def _box_muller(bits: list[Tensor]) -> list[Tensor]:
    """Two pairs of 32-bit words, each a radius and an angle, to four Gaussians in float64."""
    a, b, c, d = bits
    return [*_polar(a, b), *_polar(c, d)]


def _polar(radius_bits: Tensor, angle_bits: Tensor) -> tuple[Tensor, Tensor]:
    radius = _minus_log(radius_bits).mul_(2).sqrt_()
    cos, sin = _cos_sin(angle_bits)
    return cos.mul_(radius), sin.mul_(radius)


def _unit(bits: Tensor) -> Tensor:
    """The top 23 bits k to (2k + 1) / 2^24, which float32 holds exactly."""
    return (bits >> 9).to(torch.float64).mul_(2.0**-23).add_(2.0**-24)


def _minus_log(bits: Tensor) -> Tensor:
    """-ln((2k + 1) / 2^33) for a 32-bit k: relative error below 1e-12."""
    odd = (bits.to(torch.float64) + 0.5).view(torch.int64)  # k + 1/2 is exact: 33 bits
    # Exponent e and mantissa m with k + 1/2 = m 2^e and m in [sqrt(1/2), sqrt(2)), read off the bits of the float.
    # ln m = 2 artanh s, s = (m - 1) / (m + 1), |s| < 0.172.
    root_half = 0x3FE6A09E667F3BCD  # bits of sqrt(1/2)
    e = (odd - root_half) >> 52
    m = (odd - (e << 52)).view(torch.float64)
    s = (m - 1).div_(m + 1)
    tail = _polynomial(s * s, [2 / n for n in range(15, 0, -2)])
    exponent = (32 - e).to(torch.float64).mul_(math.log(2))
    return exponent.sub_(s.mul_(tail))


def _cos_sin(bits: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin of 2 pi (k + 1/2) / 2^32 for a 32-bit k: error below 1e-13."""
    quadrant = (bits + (1 << 29)) >> 30  # nearest multiple of pi/2, 0 to 4
    angle = (bits - (quadrant << 30)).to(torch.float64).add_(0.5).mul_(math.pi / 2**31)  # [-pi/4, pi/4]
    square = angle * angle
    cos = _polynomial(square, [(-1) ** n / math.factorial(2 * n) for n in range(7, -1, -1)])
    sin = _polynomial(square, [(-1) ** n / math.factorial(2 * n + 1) for n in range(6, -1, -1)]).mul_(angle)
    # A turn by `quadrant` right angles: odd ones exchange the two; then each has its sign.
    odd = (quadrant & 1).bool()
    cos, sin = torch.where(odd, sin, cos), torch.where(odd, cos, sin)
    cos.mul_(1 - ((quadrant + 1) & 2))  # minus in quadrants 1 and 2
    sin.mul_(1 - (quadrant & 2))  # minus in quadrants 2 and 3
    return cos, sin


def _polynomial(x: Tensor, coefficients: list[float]) -> Tensor:
    """Horner's scheme, highest power first. Product and sum are rounded apart, on any device: no fused multiply-add."""
    value = torch.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value.mul_(x).add_(coefficient)
    return value


def _addresses(what: str, values: Tensor | range | int, bits: int, device: torch.device) -> Tensor:
    if isinstance(values, range):
        values = torch.arange(values.start, values.stop, values.step)
    tensor = torch.atleast_1d(torch.as_tensor(values))
    if tensor.dtype.is_floating_point or tensor.dtype == torch.bool or tensor.dim() > 1:
        raise ValueError(f"{what}s are integers (N,), got {tuple(tensor.shape)} {tensor.dtype}")
    tensor = tensor.to(torch.int64)
    if tensor.numel():  # before the move: the values of a tensor on a GPU are waited for
        for value in torch.stack(tensor.aminmax()).tolist():
            _check(what, value, bits)
    return tensor.to(device)


def _check(what: str, value: int, bits: int) -> None:
    if not 0 <= value < 1 << bits:
        raise ValueError(f"a {what} is an integer from 0 to 2^{bits} - 1, got {value}")
