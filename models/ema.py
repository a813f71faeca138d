"""Exponential moving average of a network's weights, counted in images seen instead of steps."""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class HalfLife:
    """A weight's influence halves every `images` images; the half-life ramps up with the images seen.

    After n images in all, the last m of them since the previous update, beta = 2^(-m / h) with h = min(images, ramp n).
    So the memory is a number of images, whatever batch size they came in, and the ramp lets it forget the initial
    weights at once (as in the training code of Karras et al. 2022, arXiv 2206.00364). `math.inf` for no ramp.

    Raises:
        ValueError: if images or ramp is not positive.
    """

    images: float
    ramp: float = 0.05

    def __post_init__(self) -> None:
        for name, value in (("images", self.images), ("ramp", self.ramp)):
            if not value > 0:
                raise ValueError(
                    f"{name} must be positive, got {value}; leave the EMA out to use the weights as they are"
                )

    def forgets(self, before: int, now: int) -> float:
        """1 - beta of the update that takes the images seen from `before` to `now`."""
        # expm1, because subtracting a beta near 1 from 1 would lose its digits.
        return -math.expm1(-math.log(2) * (now - before) / min(self.images, self.ramp * now))


@dataclass(frozen=True)
class Power:
    """The power-function average of Karras et al. 2024 (arXiv 2312.02696, eqs. 1, 2 and 4): weights of time t count
    t^gamma, so its width is a fixed share of the training, whatever its length.

    `width` is sigma_rel, the standard deviation of the profile as a share of the training so far; 0.05 and 0.1 are the
    paper's. beta = (before / now)^(gamma + 1), which for one image at a time is the paper's (1 - 1/t)^(gamma + 1).

    Raises:
        ValueError: if width is outside (0, 0.28), where gamma exists and is positive.
    """

    width: float

    def __post_init__(self) -> None:
        if not 0 < self.width < 0.28:
            raise ValueError(f"width must lie in (0, 0.28), got {self.width}; 0.05 and 0.1 are usual")

    @property
    def gamma(self) -> float:
        """The positive root of (gamma + 1) (gamma + 2)^-2 (gamma + 3)^-1 = width^2."""
        low, high = 0.0, 4 / self.width**2  # the left side falls from 1/12, for gamma above 0
        for _ in range(200):
            middle = (low + high) / 2
            wide = (middle + 1) / ((middle + 2) ** 2 * (middle + 3)) > self.width**2
            low, high = (middle, high) if wide else (low, middle)
        return (low + high) / 2

    def forgets(self, before: int, now: int) -> float:
        """1 - beta of the update that takes the images seen from `before` to `now`. The initial weights count 0."""
        return 1.0 if before == 0 else -math.expm1((self.gamma + 1) * math.log(before / now))


class EMA:
    """Moving average of the weights of ``model``: average <- beta average + (1 - beta) weights after each step.

    Averages are float32 (float64 for float64 weights): in half precision the small steps of a long average would round
    to nothing. Buffers are copied, not averaged. ``model`` is only ever read. Several averages of one model are several
    EMA objects.

    Args:
        model: the bare network (not a DDP or compiled wrapper), already on its device and in its memory format; its
            weights start the average.
        memory: what beta is, as a function of the images seen.
    """

    def __init__(self, model: nn.Module, memory: HalfLife | Power) -> None:
        self.memory = memory
        self.images_seen = 0
        self._model = model
        self._parameters = {
            n: p.detach().to(torch.promote_types(p.dtype, torch.float32), copy=True)
            for n, p in model.named_parameters()
        }
        self._buffers = {n: b.detach().clone() for n, b in model.named_buffers()}

    @torch.no_grad()
    def update(self, images_seen: int) -> None:
        """Take in the model's present weights, after each optimizer step.

        Args:
            images_seen: images seen in all since training began, over all ranks.

        Raises:
            ValueError: if no image was seen since the last update.
        """
        if images_seen <= self.images_seen:
            raise ValueError(
                f"images_seen must grow, got {images_seen} after {self.images_seen}; "
                "pass the total since training began, once per step"
            )
        step = self.memory.forgets(self.images_seen, images_seen)
        averages = list(self._parameters.values())
        weights = [p.to(a.dtype) for p, a in zip(self._model.parameters(), averages, strict=True)]
        torch._foreach_lerp_(averages, weights, step)
        for buffer, source in zip(self._buffers.values(), self._model.buffers(), strict=True):
            buffer.copy_(source)
        self.images_seen = images_seen

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Overwrite the weights and buffers of ``model``, a network of the same architecture, with the averages.

        Raises:
            ValueError: if the names or shapes of ``model`` differ.
        """
        targets = dict(model.named_parameters()) | dict(model.named_buffers())
        _copy(self._parameters | self._buffers, targets, "model")

    def module(self) -> nn.Module:
        """A fresh copy of the model that holds the averages, in eval mode and without gradients."""
        model = copy.deepcopy(self._model)
        self.copy_to(model)
        model.zero_grad(set_to_none=True)  # deepcopy took the gradients along
        return model.eval().requires_grad_(False)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything needed to continue, as a flat dict of fresh contiguous tensors (ready for safetensors)."""
        tensors = {f"average.{n}": v for n, v in (self._parameters | self._buffers).items()}
        state = {n: v.clone(memory_format=torch.contiguous_format) for n, v in tensors.items()}
        state["images_seen"] = torch.tensor(self.images_seen)
        for name, value in self._settings().items():
            state[name] = torch.tensor(value, dtype=torch.float64)
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from what :meth:`state_dict` gave.

        Raises:
            ValueError: if the state belongs to another architecture or memory; this EMA is then unchanged.
        """
        own = self._settings()
        saved = {n.removeprefix("memory."): v.item() for n, v in state.items() if n.startswith("memory.")}
        if saved != {n.removeprefix("memory."): v for n, v in own.items()} or "images_seen" not in state:
            raise ValueError(
                f"state must be that of an EMA with {self.memory}, got {saved}; load it into the EMA that saved it"
            )
        averages = {n.removeprefix("average."): v for n, v in state.items() if n.startswith("average.")}
        _copy(averages, self._parameters | self._buffers, "state")
        self.images_seen = int(state["images_seen"])

    def _settings(self) -> dict[str, float]:
        return {f"memory.{type(self.memory).__name__}.{name}": value for name, value in vars(self.memory).items()}


def _copy(sources: dict[str, Tensor], targets: dict[str, Tensor], culprit: str) -> None:
    """Copy ``sources`` into ``targets`` by name, all or nothing."""
    shapes = [{n: tuple(v.shape) for n, v in tensors.items()} for tensors in (sources, targets)]
    if shapes[0] != shapes[1]:
        name, shape = min(shapes[0].items() ^ shapes[1].items())
        raise ValueError(
            f"{culprit} must have the names and shapes of the averaged model, differs in {name} {shape}; "
            "build both from the same config"
        )
    for name, source in sources.items():
        targets[name].detach().copy_(source)
