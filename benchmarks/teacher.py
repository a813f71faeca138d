"""How fast the TarFlow teacher is: against the published algorithm, and Jacobi decoding against sequential.

    python -m benchmarks.teacher [--quick] [--device cuda] [--threads 2]

writes benchmarks/results/teacher-<device>.json and .md. One process, medians over runs, the two sides taking turns, on
the same weights, with their results asserted equal to 1e-4. With CUDA it adds images per second at published sizes.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.decoding import jacobi
from benchmarks.plain_tarflow import PlainTarFlow
from benchmarks.publish import publish
from benchmarks.timing import Bench, Rows, processor
from models.tarflow import CONFIGS, TarFlow, TarFlowConfig, decode

# The published map, so with a free scale. CIFAR-10's width and depth, with one block of its six to keep CPU runs short.
WIDE = TarFlowConfig(channels=3, size=32, patch=2, width=256, blocks=1, layers=6, log_scale_bound=None)
DIGITS = TarFlowConfig(channels=1, size=8, patch=2, width=64, blocks=8, layers=1, head_dim=32, log_scale_bound=None)
NARROW = TarFlowConfig(channels=1, size=32, patch=2, width=64, blocks=4, layers=2, head_dim=32, log_scale_bound=None)


# --- measuring


def random_pair(config: TarFlowConfig, device: torch.device) -> tuple[TarFlow, PlainTarFlow]:
    """Ours and the plain one with the same weights, as lively as trained ones."""
    torch.manual_seed(0)
    ours, plain = TarFlow(config).to(device), PlainTarFlow(config).to(device)
    for block in ours.blocks:
        torch.nn.init.normal_(block.head.weight, std=0.02)
    plain.load_state_dict(ours.state_dict())
    return ours, plain


def assert_equal(ours: Tensor, plain: Tensor) -> float:
    error = (ours - plain).abs().max().item()
    assert error <= 1e-4, f"ours and the plain algorithm must agree to 1e-4, not {error}"
    return error


def images(config: TarFlowConfig, batch: int, device: torch.device) -> Tensor:
    return torch.rand(batch, config.channels, config.size, config.size, device=device) * 2 - 1


# --- against the published algorithm


def compare(bench: Bench, name: str, config: TarFlowConfig, batch: int, sample_batches: list[int]) -> Rows:
    """Rows on the training step, encoding and sequential sampling of one configuration."""
    ours, plain = random_pair(config, bench.device)
    x = images(config, batch, bench.device)
    rows: Rows = []

    def row(what: str, batch: int, error: float, times: list[float]) -> None:
        ours_s, plain_s = times
        rows.append(
            {"what": what, "config": name, "batch": batch, "ours_s": ours_s, "plain_s": plain_s}
            | {"ratio": plain_s / ours_s, "max_error": error}
        )
        print(
            f"{what:20} {name:8} batch {batch:4}: {plain_s / ours_s:.2f}x  ({plain_s:.3f} s -> {ours_s:.3f} s)",
            flush=True,
        )

    def step(loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    @torch.no_grad()
    def encode_plain() -> Tensor:
        return plain(x)[0]

    z = encode_plain()
    row(
        "encoding",
        batch,
        assert_equal(_tokens(ours.encode(x), config), z),
        bench.medians(lambda: ours.encode(x), encode_plain),
    )
    for sample_batch in sample_batches:
        noise = torch.randn_like(images(config, sample_batch, bench.device))
        noise_tokens = _tokens(noise, config)
        error = assert_equal(decode(ours, noise), plain.reverse(noise_tokens))
        times = bench.medians(lambda z=noise: decode(ours, z), lambda z=noise_tokens: plain.reverse(z))
        row("sequential sampling", sample_batch, error, times)
    # Last, as it changes the weights; with a rate so small that both keep the values they have.
    losses = (lambda: -ours.log_prob(x).mean() / config.dims, lambda: plain.loss(x))
    optimizers = [torch.optim.AdamW(model.parameters(), lr=1e-9) for model in (ours, plain)]
    works = [lambda loss=loss, o=o: step(loss, o) for loss, o in zip(losses, optimizers, strict=True)]
    row("training step", batch, 0.0, bench.medians(*works))
    return rows


def _tokens(image: Tensor, config: TarFlowConfig) -> Tensor:
    return F.unfold(image, config.patch, stride=config.patch).transpose(1, 2)


# --- memory


def high_water_mark() -> float:
    """The most memory this process has held, in MiB. (Linux; getrusage would report a parent's as well.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def sampling_memory(side: str, batch: int = 32) -> float:
    """MiB by which sampling raises this process's high-water mark."""
    ours, plain = random_pair(WIDE, torch.device("cpu"))
    z = torch.randn(batch, WIDE.channels, WIDE.size, WIDE.size)
    before = high_water_mark()
    decode(ours, z) if side == "ours" else plain.reverse(_tokens(z, WIDE))
    return high_water_mark() - before


def memory() -> dict[str, float]:
    """Peak memory of sampling, each side in a separate process."""
    peak = {}
    for side in ("ours", "plain"):
        command = [sys.executable, "-m", "benchmarks.teacher", "--memory-of", side]
        peak[side] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print("peak memory of sampling, MiB:", peak, flush=True)
    return peak


# --- throughput on a GPU


def throughput(bench: Bench) -> Rows:
    """Images per second of training (bfloat16), encoding (float32) and sampling at published sizes."""
    rows: Rows = []
    for name, batch in (("cifar10-uncond", 256), ("imagenet64-uncond", 64)):
        for compiled in (False, True):
            flow = TarFlow(CONFIGS[name]).to(bench.device)
            if compiled:
                flow.compile()
            x = images(flow.config, batch, bench.device)
            optimizer = torch.optim.AdamW(flow.parameters(), lr=1e-9, fused=True)

            def step(flow: TarFlow = flow, x: Tensor = x, optimizer: torch.optim.Optimizer = optimizer) -> None:
                optimizer.zero_grad()
                with torch.autocast("cuda", torch.bfloat16):
                    loss = -flow.log_prob(x).mean() / flow.config.dims
                loss.backward()
                optimizer.step()

            step_s, encode_s = bench.medians(step, lambda flow=flow, x=x: flow.encode(x))
            rows.append(
                {"config": name, "batch": batch, "compiled": compiled}
                | {"train": batch / step_s, "encode": batch / encode_s}
            )
            print(rows[-1], flush=True)
    return rows


# --- report


def markdown(result: dict[str, Any]) -> str:
    """The result as a page for people."""
    machine = result["machine"]
    lines = [
        f"# TarFlow on {machine['device']}",
        "",
        f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}. "
        f"Medians of {result['repeats']} runs.",
        "",
        "## Against the published algorithm (same weights, same results to 1e-4)",
        "",
        "| what | configuration | batch | plain, s | ours, s | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for r in result["against_plain"]:
        times = f"{r['plain_s']:.4f} | {r['ours_s']:.4f} | {r['ratio']:.2f}"
        lines.append(f"| {r['what']} | {r['config']} | {r['batch']} | {times} |")
    lines += [
        "",
        "## Jacobi decoding of a trained teacher over our own sequential decoding, 256 tokens",
        "",
        "FD is of 256 samples (32 if quick) to the noisy data, on pixels averaged to 8 x 8.",
        "",
        "| schedule | tolerance | batch | ratio | RMS error | FD | FD sequential | FD data halves | calls per block |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in result["jacobi"]:
        distances = f"{r['fd']:.4f} | {r['fd_sequential']:.4f} | {r['fd_data_halves']:.4f}"
        lines.append(
            f"| {r['what']} | {r['tolerance']} | {r['batch']} | {r['ratio']:.2f} | {r['rms_error']:.4f} "
            f"| {distances} | {r['calls_per_block']} |"
        )
    if "memory_mib" in result:
        peak = result["memory_mib"]
        lines += ["", f"Peak memory of sampling 32 images: {peak['plain']:.0f} MiB plain, {peak['ours']:.0f} MiB ours."]
    if "throughput" in result:
        lines += [
            "",
            "## Images per second",
            "",
            "| configuration | batch | compiled | train | encode |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {r['config']} | {r['batch']} | {r['compiled']} | {r['train']:.0f} | {r['encode']:.0f} |"
            for r in result["throughput"]
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="fewer runs, smaller batches, a shorter training")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--memory-of", choices=["ours", "plain"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.memory_of:
        print(sampling_memory(args.memory_of))
        return

    bench = Bench(args.device, repeats=1 if args.quick else 3)
    cuda = bench.device.type == "cuda"
    result: dict[str, Any] = {
        "machine": {
            "device": torch.cuda.get_device_name() if cuda else "cpu",
            "processor": processor(),
            "threads": args.threads,
            "torch": torch.__version__,
        },
        "repeats": bench.repeats,
        "quick": args.quick,
    }
    result["against_plain"] = compare(bench, "digits", DIGITS, 256, [256])
    result["against_plain"] += compare(bench, "narrow", NARROW, 16, [16] if args.quick else [1, 16, 64])
    result["against_plain"] += compare(bench, "cifar10", WIDE, 32, [16] if args.quick else [1, 16, 64])
    result["jacobi"] = jacobi(bench, args.quick)
    if cuda:
        result["throughput"] = throughput(bench)
    else:
        result["memory_mib"] = memory()
    publish(args.out, f"teacher-{bench.device.type}", result, markdown(result))


if __name__ == "__main__":
    main()
