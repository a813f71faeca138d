"""TarFlow against the published algorithm in plain PyTorch, on the same weights: images/s, eager and compiled.

The share is ours, of the speed of large matrix products in the same precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from benchmarks.gpu_parts import Context, Row, autocast, flops, matmul_flops
from benchmarks.plain_tarflow import PlainTarFlow
from benchmarks.teacher import DIGITS, assert_equal, images, random_pair
from benchmarks.teacher import _tokens as tokens
from models.tarflow import CONFIGS, TarFlow, decode


def measure(context: Context) -> Iterator[Row]:
    config = DIGITS if context.quick else replace(CONFIGS["cifar10-uncond"], log_scale_bound=None)
    batch, bench = 8 if context.quick else 128, context.bench(5)
    x = images(config, batch, context.device)

    def row(what: str, precision: str, compiled: bool, works: list[Callable[[], object]], operations: float) -> Row:
        ours, plain = bench.medians(*works)
        share = f"{operations / ours / matmul_flops(context, precision):.1%}"
        return {
            "what": what,
            "batch": batch,
            "precision": precision,
            "compiled": compiled,
            "ours, images/s": batch / ours,
            "plain, images/s": batch / plain,
            "ratio": plain / ours,
            "share of matrix products": share,
        }

    for precision, compiled in (("bfloat16", False), ("bfloat16", True), ("float32", False)):
        if context.quick and compiled:
            continue
        ours, plain = random_pair(config, context.device)
        operations = flops(_step(context, precision, ours))
        if compiled:
            ours.compile()
            plain.compile()
        steps = [_step(context, precision, side) for side in (ours, plain)]
        yield row("training step", precision, compiled, steps, operations)
        torch.compiler.reset()

    ours, plain = random_pair(config, context.device)
    with torch.no_grad():
        assert_equal(tokens(ours.encode(x), config), plain(x)[0])
        encoding: list[Callable[[], object]] = [lambda: ours.encode(x), lambda: plain(x)]
        yield row("encoding", "float32", False, encoding, flops(encoding[0]))
        z = torch.randn_like(x)
        sampling: list[Callable[[], object]] = [lambda: decode(ours, z), lambda: plain.reverse(tokens(z, config))]
        yield row("sampling, token by token", "float32", False, sampling, flops(sampling[0]))


def _step(context: Context, precision: str, flow: TarFlow | PlainTarFlow) -> Callable[[], object]:
    """A training step with a rate so small that the weights keep their values."""
    config, optimizer = flow.config, torch.optim.AdamW(flow.parameters(), lr=1e-9, fused=True)
    x = images(config, 8 if context.quick else 128, context.device)

    def loss() -> Tensor:
        return flow.loss(x) if isinstance(flow, PlainTarFlow) else -flow.log_prob(x).mean() / config.dims

    def step() -> None:
        optimizer.zero_grad()
        with autocast(context, precision):
            value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimizer.step()

    return step
