"""Each network on the device against the CPU: outputs and gradients, and MeanFlow's target in forward mode.

Differences are relative to the CPU's float32, in the norm of the whole. The column "CPU" is what the precision does on
the CPU itself: a device should be no further away than that.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from benchmarks.gpu_parts import DTYPES, Context, Row
from models import dit, tarflow, unet
from pipeline.flow_matching.mean_flow import average_velocity_target
from pipeline.metrics import Inception, build_classifier

CPU = torch.device("cpu")
#: Relative differences that rounding explains; TF32 in cuDNN's convolutions has 10 bits, as half of float32's digits.
TOLERANCE = {"float32": 5e-3, "bfloat16": 0.15}
Output = Callable[[nn.Module], Tensor]


def measure(context: Context) -> Iterator[Row]:
    """Raises AssertionError after the last row where a difference is larger than rounding explains."""
    wrong = []
    for name, network, output, precisions in cases(context.quick):
        exact = results(network, output, CPU, "float32")
        for precision in precisions:
            here = results(network, output, context.device, precision)
            there = exact if precision == "float32" else results(network, output, CPU, precision)
            row: Row = {"network": name, "precision": precision}
            for kind, ours, cpu, reference in zip(("outputs", "gradients"), here, there, exact, strict=True):
                row |= {kind: difference(ours, reference), f"{kind} CPU": difference(cpu, reference)}
            differences = [row[kind] for kind in ("outputs", "gradients") if row[kind] is not None]
            right = max(differences) <= TOLERANCE[precision]  # NaN is not
            yield row | {"within rounding": right}
            wrong += [] if right else [f"{name} in {precision}"]
    if wrong:
        raise AssertionError(f"further from the CPU than rounding explains: {', '.join(wrong)}")


def cases(quick: bool) -> Iterator[tuple[str, nn.Module, Output, Sequence[str]]]:
    """Names, networks, for each a function that gives its outputs on two images, and the precisions it computes in."""
    wide = unet.UNetConfig(channels=3, size=32, base=32) if quick else unet.CONFIGS["cifar10"]
    transformer = replace(dit.CONFIGS["dit-s/4"], channels=3, size=32, classes=10)
    flow = tarflow.CONFIGS["cifar10-cond"]
    small = {"depth": 2} if quick else {}
    fewer = {"blocks": 2, "layers": 1} if quick else {}
    both, single = tuple(DTYPES), ("float32",)  # what is only evaluated, and derivatives in time, are never in half
    average = {"interval": True, "time_scale": 16.0}
    yield "U-Net, CIFAR-10", lively(unet.UNet(replace(wide, classes=10))), velocities(3, 32), both
    yield "U-Net, digits", lively(unet.UNet(unet.CONFIGS["digits"])), velocities(1, 8), both
    yield "DiT-S/4", lively(dit.DiT(replace(transformer, **small))), velocities(3, 32), both
    yield "TarFlow, CIFAR-10", lively(tarflow.TarFlow(replace(flow, **fewer))), latents(3, 32), both
    yield "U-Net, MeanFlow's target", lively(unet.UNet(replace(wide, classes=10, **average))), targets(3, 32), single
    yield "DiT, MeanFlow's target", lively(dit.DiT(replace(transformer, **small, **average))), targets(3, 32), single
    yield (
        "classifier, 28x28",
        build_classifier(1, 28, 10),
        lambda network: network.features(pixels(1, 28, network)),
        single,
    )
    yield "Inception", Inception(), lambda network: network.features(pixels(3, 32, network)), single


def lively(network: nn.Module) -> nn.Module:
    """Without dropout, and no branch silent: layers that start at zero get small weights."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
    return network.eval()


def pixels(channels: int, size: int, network: nn.Module) -> Tensor:
    """Two images, the same on every device."""
    images = torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return images.to(next(network.parameters()).device)


def velocities(channels: int, size: int) -> Output:
    def output(network: nn.Module) -> Tensor:
        x = pixels(channels, size, network)
        return network(x, torch.tensor([0.25, 0.75], device=x.device), torch.tensor([3, 7], device=x.device))

    return output


def latents(channels: int, size: int) -> Output:
    def output(network: nn.Module) -> Tensor:
        x = pixels(channels, size, network)
        return network(x, torch.tensor([3, 7], device=x.device))[0]

    return output


def targets(channels: int, size: int) -> Output:
    def output(network: nn.Module) -> Tensor:
        x = pixels(channels, size, network)
        r, t, labels = (torch.tensor(pair, device=x.device) for pair in ([0.1, 0.3], [0.25, 0.9], [3, 7]))
        return average_velocity_target(network, x, x.flip(0), r, t, labels)

    return output


def results(network: nn.Module, output: Output, device: torch.device, precision: str) -> tuple[Tensor, Tensor]:
    """Outputs, and the gradient of their mean square by all weights, as flat vectors of float64 on the CPU: empty for
    features and targets, which have no gradient."""
    network = copy.deepcopy(network).to(device).requires_grad_(True)
    with torch.autocast(device.type, DTYPES[precision], enabled=precision != "float32"):
        y = output(network)
    if y.requires_grad:
        y.float().square().mean().backward()
    gradients = [parameter.grad.flatten() for parameter in network.parameters() if parameter.grad is not None]
    return y.detach().double().flatten().cpu(), torch.cat([torch.empty(0, device=device), *gradients]).double().cpu()


def difference(a: Tensor, b: Tensor) -> float | None:
    """The norm of the difference relative to that of `b`; None for vectors without numbers."""
    return float((a - b).norm() / b.norm()) if len(b) else None
