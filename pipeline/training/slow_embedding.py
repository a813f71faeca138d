"""From a network of velocities to one of average velocities with the same answers.

MeanFlow regresses on the derivative in t. A trained student embeds t by sinusoids that change within a thousandth of
the time axis, and that derivative is mostly their oscillation. So the embedding is fitted again from slow sinusoids
before the training, as Re-MeanFlow does (arXiv 2511.23342), and every other weight is taken over.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import torch
from torch import Tensor, nn

from models.dit import DiT
from models.unet import UNet
from models.velocity import VelocityNetwork
from pipeline.outputs import networks
from pipeline.runtime.seeds import derive

log = logging.getLogger(__name__)
FIT_TIMES = 4096  # of the fit, evenly spread
RIDGE = 1e-4  # of the mean square of a feature: an error below a hundredth, and no large weights


def with_slow_embedding(network: nn.Module, time_scale: float, seed: int) -> nn.Module:
    """A network of intervals whose velocity, u(x, t, t), is that of `network`, up to the error of the fit.

    Args:
        network: a student, on the CPU. One of intervals is returned as it is.
        time_scale: radians of the fastest sinusoid of the result.
        seed: of the weights that are not taken over.
    """
    assert isinstance(network, UNet | DiT)
    if network.config.interval:
        return network
    slow = networks.build(replace(network.config, interval=True, time_scale=time_scale), derive(seed, "slow"))
    others = {name: value for name, value in network.state_dict().items() if not name.startswith("embed_time.")}
    fitted = slow.load_state_dict(others, strict=False)
    assert not fitted.unexpected_keys and all(name.startswith("embed_") for name in fitted.missing_keys)
    error = _fit(slow, network)
    log.info("the slow embedding of time differs from the one before by %.1f%% of its spread", 100 * error)
    return slow.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@torch.no_grad()
def _fit(slow: VelocityNetwork, network: VelocityNetwork) -> float:
    """Fit the last layer of `slow.embed_time` to `network`'s; the error left, in standard deviations over t ~ U(0, 1).

    Ridge regression in float64 on the features of the layers before it, which keep their weights: slow functions of t,
    many more than a smooth answer needs.
    """
    times = (torch.arange(FIT_TIMES, dtype=torch.float64) + 0.5) / FIT_TIMES
    before, last = slow.embed_time[:-1], slow.embed_time[-1]
    assert isinstance(last, nn.Linear)
    features = before(slow.sinusoids(times).float())
    target = _embedded(network, times.float()).double()
    features, mean = features.double() - features.double().mean(0), target.mean(0)
    gram = features.T @ features
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    weight = torch.linalg.solve(gram + ridge, features.T @ (target - mean)).T
    last.weight.copy_(weight)
    # The mean of the features was taken off above: the bias puts it back.
    last.bias.zero_()
    last.bias.copy_(mean - _embedded(slow, times.float()).double().mean(0))
    error = (_embedded(slow, times.float()) - target).square().mean() / (target - mean).square().mean()
    return float(error.sqrt())


def _embedded(network: VelocityNetwork, t: Tensor) -> Tensor:
    return network.embed_time(network.sinusoids(t))
