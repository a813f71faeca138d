"""The U-Net of CIFAR-10, trained and sampled: images/s, against torchcfm where it is installed.

The share is of the speed of large matrix products, for the operations that torch counts. Products are in the precision
of the convolutions, which take nearly all of them: on a GPU, cuDNN's convolutions of float32 are in TF32.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.engine import compare
from benchmarks.engine_sides import CALLS, Setting, peer_version
from benchmarks.gpu_parts import COMPILING, TF32, Context, Row, autocast, flops, matmul_flops
from models.unet import UNet


def measure(context: Context) -> Iterator[Row]:
    peaks: dict[str, float] = {}
    for setting, rounds, sampling in settings(context):
        products = products_of(setting)
        if products not in peaks:
            peaks[products] = matmul_flops(context, products)
        train, sample = operations(setting, context)
        for row in compare(setting, rounds, sampling):
            each = train if row["what"] == "training step" else sample * CALLS
            shown = {
                "what": row["what"],
                "network": row["network"],
                "batch": row["batch"],
                "precision": row["precision"],
                "compiled": row["compiled"],
                "images/s": row["ours_images_per_second"],
                "matrix products": products,
                "share of their speed": f"{each * row['ours_images_per_second'] / peaks[products]:.1%}",
            }
            if peer_version():
                shown |= {"torchcfm, images/s": row["peer_images_per_second"], "ratio": row["ratio_median"]}
            yield shown


def settings(context: Context) -> Iterator[tuple[Setting, int, int]]:
    """Settings with their rounds of training steps and of sampling; the later ones while there is time."""
    if context.quick:
        yield Setting("narrow", 2, "float32", context.device), 2, 1
        return
    for precision, batch, compiled in (
        ("bfloat16", 128, False),
        ("bfloat16", 128, True),
        ("bfloat16", 512, True),
        ("float32", 128, False),
    ):
        if context.left > (COMPILING if compiled else 15):
            yield Setting("cifar10", batch, precision, context.device, compiled), 20, 3
        torch.compiler.reset()


def products_of(setting: Setting) -> str:
    """The precision that cuDNN's convolutions, or those of a CPU, have in a setting."""
    return TF32 if setting.device.type == "cuda" and setting.precision == "float32" else setting.precision


def operations(setting: Setting, context: Context) -> tuple[float, float]:
    """Operations per image of a training step and of a network call."""
    network, batch = UNet(setting.shape).to(context.device), 4
    x, t = torch.randn(batch, *setting.shape.shape, device=context.device), torch.rand(batch, device=context.device)

    def forward() -> torch.Tensor:
        with autocast(context, setting.precision):
            return network(x, t)

    return flops(lambda: forward().float().sum().backward()) / batch, flops(forward) / batch
