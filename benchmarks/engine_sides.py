"""The two sides: our training loop and sampler; torchcfm's network, trained and sampled as in its CIFAR-10 example."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchdiffeq import odeint

from models.unet import CONFIGS, UNet, UNetConfig
from pipeline.couplings import Independent
from pipeline.data.examples import Examples
from pipeline.flow_matching.objective import FlowMatching, transport_cost
from pipeline.flow_matching.paths import LINEAR
from pipeline.flow_matching.sampling import student_samples
from pipeline.flow_matching.times import Uniform
from pipeline.outputs.networks import build
from pipeline.recipe import sections as configs
from pipeline.runtime.device import prepare
from pipeline.runtime.job import Job, Progress
from pipeline.training._data import Prefetcher
from pipeline.training._loop import Loop
from pipeline.training.flow_batches import FlowBatches

INSTALL = "pip install --no-deps torchcfm==1.0.7"
#: The CIFAR-10 network of the literature, and one of a quarter of its width. Attention heads have 64 channels in both.
NETWORKS = {"cifar10": CONFIGS["cifar10"], "narrow": UNetConfig(channels=3, size=32, base=32)}
COUNTS = {"cifar10": 35_746_307, "narrow": 2_245_763}  # weights
CALLS = 10  # of the network, for a sample
LR, WARMUP, CLIP, EMA = 2e-4, 5000, 1.0, 0.9999  # the example's; a warm-up in steps, a decay by step
_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

#: A training step; a function from noise (B, C, H, W) to samples.
Step = Callable[[], object]
Sampler = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Setting:
    """Settings that both sides share."""

    network: str
    batch: int
    precision: str
    device: torch.device
    compiled: bool = False
    deterministic: bool = True  # ours; the peer's kernels are the fastest ones

    @property
    def shape(self) -> UNetConfig:
        return NETWORKS[self.network]

    def autocast(self) -> torch.autocast:
        kind = _TYPES[self.precision]
        return torch.autocast(self.device.type, kind, enabled=kind is not torch.float32)

    def called(self, network: nn.Module) -> Callable[..., Tensor]:
        return torch.compile(network) if self.compiled else network


def peer_version() -> str | None:
    """The installed version of torchcfm; None where it is not installed."""
    try:
        return metadata.version("torchcfm")
    except metadata.PackageNotFoundError:
        return None


def random_images(count: int, shape: tuple[int, int, int], levels: int = 256, classes: int = 0) -> Examples:
    """Images that exercise the data path as photographs would: their content has no part in its time."""
    source = np.random.default_rng(0)
    images = source.integers(0, levels, (count, *shape), dtype=np.uint8)
    return Examples(images, source.integers(0, classes, count) if classes else None, levels)


def a_job(
    work: Path,
    shape: UNetConfig,
    training: configs.Training,
    compute: configs.Compute,
    progress: Callable | None = None,
) -> Job:
    """The data of a student's training, without a store."""
    work.mkdir(parents=True, exist_ok=True)
    fields = ("base", "multipliers", "blocks", "attention", "head_channels", "dropout")
    network = configs.UNet(**{name: getattr(shape, name) for name in fields})
    config = configs.Student(seed=0, coupling="independent", network=network, training=training)
    return Job("student", config, {}, work, compute, Progress("student", work, (progress,) if progress else ()))


class Ours:
    """The student's training as it runs: its loop, its data path and its sampler, with deterministic kernels."""

    def __init__(self, setting: Setting, work: Path) -> None:
        self.setting, batch, device = setting, setting.batch, setting.device
        self.compute = configs.Compute(
            device=device.type,
            compile=setting.compiled,
            deterministic=setting.deterministic,
            threads=torch.get_num_threads(),
        )
        training = configs.Training(
            images=100_000 * batch,
            batch=batch,
            lr=LR,
            warmup=WARMUP * batch,
            clip=CLIP,
            ema=round(batch * math.log(0.5) / math.log(EMA)),
            optimizer="adam",
            precision=setting.precision,
        )
        images = random_images(2048, setting.shape.shape)
        couples = FlowBatches(images, Independent(), Uniform(), LINEAR, 0.0, 0, batch)
        network = build(setting.shape, 0).to(device)
        self.loop = Loop(
            a_job(work, setting.shape, training, self.compute),
            network,
            FlowMatching(couples.path),
            training,
            device,
            couples,
        )
        self.steps = Prefetcher(couples, device).steps(range(training.steps))

    @property
    def weights(self) -> int:
        return sum(parameter.numel() for parameter in self.loop.network.parameters())

    def step(self) -> None:
        prepare(self.compute)
        number, part = next(self.steps)
        self.loop.training_step(number, part, transport_cost(part), (False, False))

    def sampler(self) -> Sampler:
        network, how = self.setting.called(self.loop.averaged()), configs.Sweep(grid="uniform", nfe=(CALLS,))

        def sample(z: Tensor) -> Tensor:
            prepare(self.compute)
            with self.setting.autocast():
                return student_samples(network, z, None, how, CALLS)[0]

        return sample

    def save(self) -> None:
        self.loop.save()


class Peer:
    """torchcfm's network in the training step of its example: Adam, clipping, warm-up and an average of the weights,
    tensor by tensor. It is handed its images ready, so that its data path costs nothing."""

    def __init__(self, setting: Setting) -> None:
        from torchcfm.conditional_flow_matching import ConditionalFlowMatcher

        self.setting, device = setting, setting.device
        self.network = peer_network(setting.shape).to(device)
        self.average = copy.deepcopy(self.network)
        self.called = setting.called(self.network)
        self.matcher = ConditionalFlowMatcher(sigma=0.0)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=LR)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: min(step, WARMUP) / WARMUP)
        self.batches = itertools.cycle(
            [torch.rand(setting.batch, *setting.shape.shape, device=device) * 2 - 1 for _ in range(4)]
        )

    @property
    def weights(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters())

    def step(self) -> None:
        torch.use_deterministic_algorithms(False)
        self.network.train()
        self.optimizer.zero_grad()
        x1 = next(self.batches)
        with self.setting.autocast():
            t, x_t, target = self.matcher.sample_location_and_conditional_flow(torch.randn_like(x1), x1)
            loss = (self.called(t, x_t) - target).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        self.optimizer.step()
        self.schedule.step()
        averages, weights = self.average.state_dict(), self.network.state_dict()
        for name, average in averages.items():
            average.copy_(average * EMA + weights[name] * (1 - EMA))

    def sampler(self) -> Sampler:
        network = self.setting.called(self.average.eval())

        @torch.no_grad()
        def sample(z: Tensor) -> Tensor:
            torch.use_deterministic_algorithms(False)
            times = torch.linspace(0, 1, CALLS + 1, device=z.device)
            with self.setting.autocast():
                return odeint(lambda t, x: network(t, x), z, times, method="euler")[-1]

        return sample


def peer_network(shape: UNetConfig) -> nn.Module:
    """torchcfm's network of the same shape."""
    from torchcfm.models.unet.unet import UNetModelWrapper

    return UNetModelWrapper(
        dim=shape.shape,
        num_channels=shape.base,
        num_res_blocks=shape.blocks,
        channel_mult=list(shape.multipliers),
        num_head_channels=shape.head_channels,
        attention_resolutions=",".join(map(str, shape.attention)),
        dropout=shape.dropout,
    )


@torch.no_grad()
def largest_difference(shape: UNetConfig) -> float:
    """Of our network's outputs and the peer's, for the same weights, in float32; relative to the largest output.

    Only where both take 32 groups in every norm, which of the networks here `cifar10` does.
    """
    torch.manual_seed(0)
    ours, peer = UNet(shape).eval(), peer_network(shape).eval()
    # Both list their weights from the input to the output.
    for (name, own), counterpart in zip(ours.named_parameters(), peer.parameters(), strict=True):
        if not own.any():
            own.normal_(std=0.02)  # else whole branches would say nothing
        value = own
        if ".qkv." in name:  # ours: the queries of all heads, then their keys, their values; peer: head by head
            value = own.view(3, -1, shape.head_channels, *own.shape[1:]).transpose(0, 1)
        counterpart.copy_(value.reshape(counterpart.shape))
    x, t = torch.randn(2, *shape.shape), torch.tensor([0.25, 0.75])
    answer = ours(x, t)
    return float((answer - peer(1000 * t, x)).abs().max() / answer.abs().max())  # the factor is within our network
