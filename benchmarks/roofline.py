"""How far sampling on one CPU core is from what the core can do: U-Net calls, and tokens of sequential decoding.

    pip install --no-deps torchcfm==1.0.7      # the peer of the U-Net; without it its columns are left out
    python -m benchmarks.roofline [--rounds 5]

writes benchmarks/results/roofline.{json,md}: the core's roofs (Williams et al. 2009), measured by large products, the
network's own convolutions and reads of memory; and for each job its FLOPs, the bytes that must move, the bound on its
time, and the share of the bound that ours and the plain version reach. All measurements take turns on one thread, by
processor time, so that other work on the machine disturbs all alike.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.engine_sides import INSTALL, NETWORKS, peer_network, peer_version
from benchmarks.engine_turns import turns
from benchmarks.matrix import RESULTS
from benchmarks.plain_tarflow import PlainTarFlow
from benchmarks.publish import publish
from benchmarks.teacher import NARROW, WIDE, random_pair
from benchmarks.timing import Rows, processor
from models.tarflow import TarFlow, TarFlowConfig
from models.tarflow._decoding import ROWS_AT_ONCE, Inverse
from models.tarflow._token import TokenReader, reads_tokens
from models.unet import UNet
from pipeline.cost.flops import counted

Work = Callable[[], object]
MIDDLE = 128  # keys and values read by the token in the middle of 256: its time is the mean over tokens
READ = 16 << 20  # float32 numbers of the buffers that are read: 64 MiB, beyond a core's L2
TOKENS = 8  # decoded in a turn: the first may find other works' data in the caches
UNET_BATCH = 8


def roofs() -> dict[str, tuple[Work, float]]:
    """Work that reaches for a roof of the core, and its FLOPs or bytes."""
    a, b = torch.randn(2, 1024, 1024)
    one, two, three = torch.randn(3, READ)
    matrix, vector = one.view(4096, -1), torch.randn(READ // 4096)
    return {
        "product": (lambda: a @ b, 2.0 * 1024**3),
        "read": (lambda: matrix @ vector, 4.0 * READ),
        "copy": (lambda: two.copy_(one), 8.0 * READ),
        "triad": (lambda: torch.add(one, two, alpha=3.0, out=three), 12.0 * READ),
    }


def convolutions(network: nn.Module, x: Tensor, t: Tensor) -> tuple[Work, float]:
    """The network's own convolutions, one after the other and nothing else; and their FLOPs."""
    calls: list[tuple[nn.Conv2d, Tensor]] = []

    def keep(layer: nn.Conv2d, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        calls.append((layer, inputs[0]))

    hooks = [layer.register_forward_hook(keep) for layer in network.modules() if type(layer) is nn.Conv2d]
    network(x, t)
    for hook in hooks:
        hook.remove()

    def work() -> None:
        for layer, inputs in calls:
            layer(inputs)

    return work, counted(work).flops


def token(ours: TarFlow, rows: int) -> Work:
    """Decoding the middle token of one block, in slices of rows as `decode` does it."""
    block, x = ours.block(0), torch.randn(rows, ours.config.token_dim)
    inverses = [Inverse(ours, None, len(part), None, 1.0) for part in x.split(ROWS_AT_ONCE)]
    for inverse in inverses:
        for memory in inverse.cache.memories:
            memory.normal_()
    if not reads_tokens(block, min(rows, ROWS_AT_ONCE)):
        parts = [(inverse, part[:, None]) for inverse, part in zip(inverses, x.split(ROWS_AT_ONCE), strict=True)]
        return lambda: [block.invert(p, *i.predict(block, p, None, MIDDLE - 1)) for i, p in parts]
    readers = [TokenReader(block, inverse.cache, None, None) for inverse in inverses]
    pairs = list(zip(readers, x.split(ROWS_AT_ONCE), strict=True))
    return lambda: [block.invert(part, *read(part, MIDDLE - 1)) for read, part in pairs]


def plain_token(plain: PlainTarFlow, rows: int) -> Work:
    """The same token by the published algorithm, its lists of keys and values as long."""
    config, block = plain.config, plain.blocks[0]
    x, heads = torch.randn(rows, 1, config.token_dim), config.width // config.head_dim
    for layer in block.layers:
        for kept in (layer.attention.keys, layer.attention.values):
            kept[:] = [torch.randn(rows, heads, 1, config.head_dim) for _ in range(MIDDLE - 1)]

    def work() -> Tensor:
        h = block.embed(x) + block.position[MIDDLE : MIDDLE + 1]
        for layer in block.layers:
            h = layer(h, None, sampling=True)
            layer.attention.keys.pop(), layer.attention.values.pop()
        log_scale, shift = block.head(h).chunk(2, dim=-1)
        return x * torch.exp(log_scale) + shift

    return work


def repeated(work: Work) -> Work:
    """TOKENS times the work."""

    def works() -> None:
        for _ in range(TOKENS):
            work()

    return works


def token_bytes(config: TarFlowConfig, rows: int) -> float:
    """Bytes that one token must read: the block's weights for each slice of rows, and all rows' keys and values."""
    layers = config.depths[0]
    weights = layers * 12 * config.width**2 + 3 * config.width * config.token_dim
    return 4.0 * (weights * -(-rows // ROWS_AT_ONCE) + 2 * layers * rows * MIDDLE * config.width)


@torch.no_grad()
def measure(rounds: int) -> dict[str, Any]:
    torch.manual_seed(0)
    core = roofs()
    works = {name: work for name, (work, _) in core.items()}
    needs: dict[str, tuple[float, float]] = {}  # FLOPs and bytes of a job
    x, t = torch.randn(UNET_BATCH, *NETWORKS["cifar10"].shape), torch.full((UNET_BATCH,), 0.5)
    unet = UNet(NETWORKS["cifar10"]).eval().to(memory_format=torch.channels_last)
    works["convolutions"], convolved = convolutions(unet, x, t)
    counts = counted(lambda: unet(x, t))
    job = f"U-Net call, {UNET_BATCH} rows"
    needs[job] = counts.flops, counts.traffic
    works[f"ours: {job}"] = lambda: unet(x, t)
    if peer_version():
        peer = peer_network(NETWORKS["cifar10"]).eval()
        works[f"plain: {job}"] = lambda: peer(t, x)
    for name, config in (("narrow", NARROW), ("CIFAR-10", WIDE)):
        for rows in (1, 16, 64):
            ours, plain = (side.eval() for side in random_pair(config, torch.device("cpu")))
            job = f"token, {name} width, {rows} rows"
            one = token(ours, rows)
            needs[job] = counted(one).flops, token_bytes(config, rows)
            works[f"ours: {job}"], works[f"plain: {job}"] = repeated(one), repeated(plain_token(plain, rows))
    load = os.getloadavg()[0]
    seconds = {
        name: statistics.median(times.cpu) / (TOKENS if "token" in name else 1)
        for name, times in turns(works, rounds).items()
    }
    rates = {name: amount / seconds[name] for name, (_, amount) in core.items()}
    rates["convolutions"] = convolved / seconds["convolutions"]
    peak, bandwidth = max(rates["product"], rates["convolutions"]), max(rates[n] for n in ("read", "copy", "triad"))
    rows_: Rows = []
    for job, (flops, moved) in needs.items():
        bound, ours_s, plain_s = max(flops / peak, moved / bandwidth), seconds[f"ours: {job}"], None
        row = {"job": job, "flops": flops, "bytes": moved, "bound_s": bound, "ours_s": ours_s}
        row |= {"bound_by": "arithmetic" if flops / peak > moved / bandwidth else "memory"}
        if f"plain: {job}" in seconds:
            plain_s = seconds[f"plain: {job}"]
            row |= {"plain_s": plain_s, "ratio": plain_s / ours_s, "ratio_at_bound": plain_s / bound}
        rows_.append(row)
    return {
        "processor": processor(),
        "torch": torch.__version__,
        "peer": peer_version(),
        "rounds": rounds,
        "load": [load, os.getloadavg()[0]],
        "rates": rates,
        "convolutions_s": seconds["convolutions"],
        "jobs": rows_,
    }


def markdown(result: dict[str, Any]) -> str:
    rates = {name: rate / 1e9 for name, rate in result["rates"].items()}
    before, after = result["load"]
    peer = f"torchcfm {result['peer']}'s U-Net, " if result["peer"] else ""
    lines = [
        "# Roofline of sampling on one CPU core",
        "",
        f"`{result['command']}` on {result['processor']}, 1 thread, torch {result['torch']}, float32. Medians of "
        f"{result['rounds']} rounds of processor time, all works taking turns. Load average {before:.1f} before and "
        f"{after:.1f} after, on {os.cpu_count()} hyper-threads: above 1 the machine was not quiet, so caches and "
        "bandwidth were shared.",
        "",
        f"Roofs: {rates['product']:.0f} GFLOP/s in a product of 1024 x 1024 matrices, {rates['convolutions']:.0f} in "
        f"the U-Net's own convolutions ({1e3 * result['convolutions_s']:.0f} ms of a call). From memory beyond L2 "
        f"(64 MiB buffers) {rates['read']:.1f} GB/s read, {rates['copy']:.1f} copied, {rates['triad']:.1f} in a triad.",
        "",
        "Bound: the larger of FLOPs by the best GFLOP/s and bytes by the best GB/s. A token must read its block's "
        "weights and the keys and values of 128 tokens. A U-Net's operators read and write their operands once each. "
        f"Plain: {peer}the published TarFlow. Last column: the ratio of a version at the bound.",
        "",
        "| job | GFLOP | MB | FLOP/B | bound, ms | by | ours, ms | share | plain, ms | share | ratio | at bound |",
        "|---|---:|---:|---:|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in result["jobs"]:
        flops, moved, bound, ours = (row[name] for name in ("flops", "bytes", "bound_s", "ours_s"))
        plain = "– | – | – | –"
        if "plain_s" in row:
            plain = f"{1e3 * row['plain_s']:.2f} | {bound / row['plain_s']:.0%} | **{row['ratio']:.2f}** | "
            plain += f"{row['ratio_at_bound']:.2f}"
        lines.append(
            f"| {row['job']} | {flops / 1e9:.3f} | {moved / 1e6:.1f} | {flops / moved:.1f} | {1e3 * bound:.2f} "
            f"| {row['bound_by']} | {1e3 * ours:.2f} | {bound / ours:.0%} | {plain} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    if not peer_version():
        print(f"torchcfm is not installed, its columns are left out. To compare: {INSTALL}")
    result = {"command": f"python -m benchmarks.roofline --rounds {rounds}", **measure(rounds)}
    publish(RESULTS, "roofline", result, markdown(result))
    print(markdown(result))


if __name__ == "__main__":
    main()
