"""Couplings compared with their peers, in one run.

    pip install --no-deps torchcfm==1.0.7      # the peer of minibatch OT; without it that part is left out, and says so
    python -m benchmarks.couplings             # writes benchmarks/results/couplings-<device>.{json,md}

Images are smooth random fields of 3x32x32: times do not depend on their content, costs do.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.publish import publish
from benchmarks.timing import Bench, Rows, processor
from models.unet import CONFIGS, UNet
from pipeline.couplings import Entropic, Loom, MinibatchOT, SeededNoises, assignment
from pipeline.couplings._loom_exchange import exchange
from pipeline.data.batches import FlowBatch
from pipeline.flow_matching.objective import FlowMatching

RESULTS = Path("benchmarks/results")
SHAPE, SIZES = (3, 32, 32), (128, 512, 2048)
LOOM_BATCH, PART = 128, 16  # images of a step, and of the part of a step that is timed


def images(count: int, seed: int = 0) -> Tensor:
    """(count, 3, 32, 32) in [-1, 1], neighbouring pixels alike as in photographs."""
    coarse = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return functional.interpolate(coarse, SHAPE[1:], mode="bicubic").clamp(-2, 2) / 2


def noise(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def transport(bench: Bench) -> Rows:
    """The exact assignment against torchcfm's, which solves for a plan and then samples from it."""
    peer = importlib.util.find_spec("torchcfm")
    rows = []
    for size in SIZES:
        x, z = images(size).to(bench.device), noise(size).to(bench.device)
        labels = torch.arange(size) % 10
        works = [lambda x=x, z=z: assignment(x, z), lambda x=x, z=z, labels=labels: assignment(x, z, labels)]
        row: dict[str, Any] = {"batch": size}
        if peer:
            from torchcfm.optimal_transport import OTPlanSampler

            sampler = OTPlanSampler(method="exact")
            works.append(lambda x=x, z=z, sampler=sampler: sampler.sample_plan(z, x))
            peer_z, paired = sampler.sample_plan(z, x)
            row["cost_torchcfm"] = cost(paired, peer_z)
        ours, classes, *others = bench.medians(*works)
        row |= {
            "ms": 1e3 * ours,
            "ms_within_10_classes": 1e3 * classes,
            "cost": cost(x, z[assignment(x, z)]),
            "cost_independent": cost(x, z),
        }
        if others:
            row |= {"ms_torchcfm": 1e3 * others[0], "ratio": others[0] / ours}
        rows.append(row)
    return rows


def cost(x: Tensor, z: Tensor) -> float:
    """Mean squared distance per dimension."""
    return (x - z).double().square().mean().item()


def steps(bench: Bench) -> dict[str, Any]:
    """What couplings add to a training step of the CIFAR-10 U-Net, forward and backward."""
    x, z = images(LOOM_BATCH).to(bench.device), noise(LOOM_BATCH).to(bench.device)
    rows = torch.arange(LOOM_BATCH)
    loom = Loom(SeededNoises(0, 50_000, SHAPE, noises_per_image=4))
    network = UNet(CONFIGS["cifar10"]).to(bench.device, memory_format=torch.channels_last).train()
    part = FlowBatch(x[:PART], z[:PART], torch.rand(PART, device=bench.device), None)

    def draws() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    pair, ot, entropic, tensor = bench.medians(
        lambda: loom.noise_for(x, None, rows, draws()),
        lambda: MinibatchOT().noise_for(x, None, rows, draws()),
        lambda: Entropic(0.1).noise_for(x, None, rows, draws()),
        lambda: by_cost_tensor(x, z),
    )
    short = Bench(str(bench.device), 3)
    [piece] = short.medians(lambda: train(network, part))
    step = piece * LOOM_BATCH / PART
    result = {
        "step_ms": 1e3 * step,
        "loom_ms": 1e3 * pair,
        "ot_ms": 1e3 * ot,
        "entropic_ms": 1e3 * entropic,
        "cost_tensor_ms": 1e3 * tensor,
        "exchange_ms": 1e3 * bench.medians(lambda: exchange(x, z, None))[0],
    }
    return result | {f"{name}_share": result[f"{name}_ms"] / result["step_ms"] for name in ("loom", "ot", "entropic")}


def train(network: nn.Module, part: FlowBatch) -> None:
    network.zero_grad(set_to_none=True)
    FlowMatching()(network, part).backward()


def by_cost_tensor(x: Tensor, z: Tensor) -> Tensor:
    """The (B, B, D) tensor of differences that LOOM-CFM's published code takes its costs from."""
    return (x.flatten(1)[:, None] - z.flatten(1)[None]).square().sum(-1)


def markdown(result: dict[str, Any]) -> str:
    """The tables."""
    peer = "torchcfm 1.0.7, ms | ratio | cost, torchcfm" if "ratio" in result["transport"][0] else ""
    lines = [
        "# Couplings",
        "",
        f"{result['device']}, {result['threads']} threads, torch {result['torch']}. `{result['command']}`",
        "",
        "## Minibatch optimal transport, D = 3,072",
        "",
        f"| B | ours, ms | within 10 classes, ms | cost | independent | {peer}",
        "|" + "---:|" * (5 + 3 * bool(peer)),
    ]
    for row in result["transport"]:
        line = (
            f"| {row['batch']} | {row['ms']:.1f} | {row['ms_within_10_classes']:.1f} | {row['cost']:.5f} | "
            f"{row['cost_independent']:.5f} |"
        )
        if peer:
            line += f" {row['ms_torchcfm']:.1f} | {row['ratio']:.2f} | {row['cost_torchcfm']:.5f} |"
        lines.append(line)
    if peer:
        lines += [
            "",
            "Ours is the assignment of least cost. Theirs draws pairs from that plan with replacement: some "
            "noises twice, others never, so that its cost falls to either side.",
        ]
    s = result["steps"]
    lines += [
        "",
        f"## A training step of the CIFAR-10 U-Net, B = {LOOM_BATCH}",
        "",
        f"Forward and backward take {s['step_ms']:,.0f} ms ({PART} images, times {LOOM_BATCH // PART}).",
        "",
        "| coupling | ms | share of the step |",
        "|---|---:|---:|",
    ]
    lines += [
        f"| {name} | {s[f'{key}_ms']:.1f} | {s[f'{key}_share']:.2%} |"
        for name, key in (("LOOM-CFM, 4 noises", "loom"), ("minibatch OT", "ot"), ("entropic, 0.1", "entropic"))
    ]
    lines += [
        "",
        f"The costs alone by a (B, B, D) tensor, as the published code of LOOM-CFM takes them: "
        f"{s['cost_tensor_ms']:,.0f} ms; LOOM's whole exchange here: {s['exchange_ms']:.1f} ms.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=9)
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    if not importlib.util.find_spec("torchcfm"):
        print("torchcfm is not installed: minibatch OT is timed without its peer", file=sys.stderr)
    bench = Bench(words.device, words.repeats)
    name = torch.cuda.get_device_name() if bench.device.type == "cuda" else processor()
    result = {
        "command": f"python -m benchmarks.couplings --device {words.device} --threads {words.threads}",
        "device": name,
        "threads": words.threads,
        "torch": torch.__version__,
        "transport": transport(bench),
        "steps": steps(bench),
    }
    publish(RESULTS, f"couplings-{bench.device.type}", result, markdown(result))
    print(markdown(result))


if __name__ == "__main__":
    main()
