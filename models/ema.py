"""Exponential moving average of a network's weights, counted in images seen instead of steps."""

import copy
import math

import torch
from torch import Tensor, nn


class EMA:
    """Moving average of the weights of ``model``, with a half-life in images that ramps up.

    After n images in all, the last m of them since the previous update,

        average <- beta average + (1 - beta) weights,    beta = 2^(-m / h),    h = min(half_life_images, ramp n).

    So the memory is a number of images, whatever batch size they came in, and the ramp lets it forget the initial
    weights at once (as in the training code of Karras et al. 2022, arXiv 2206.00364). Averages are float32 (float64
    for float64 weights): in half precision the small steps of a long average would round to nothing. Buffers are
    copied, not averaged. ``model`` is only ever read.

    Several averages of one model are several EMA objects.

    Args:
        model: the bare network (not a DDP or compiled wrapper), already on its device and in its memory format; its
            weights start the average.
        half_life_images: images after which a weight's influence has halved, h.
        ramp: the half-life is at most this fraction of the images seen; ``math.inf`` for no ramp.

    Raises:
        ValueError: if half_life_images or ramp is not positive.
    """

    def __init__(self, model: nn.Module, half_life_images: float, ramp: float = 0.05) -> None:
        for name, value in (("half_life_images", half_life_images), ("ramp", ramp)):
            if not value > 0:
                raise ValueError(
                    f"{name} must be positive, got {value}; leave the EMA out to use the weights as they are"
                )
        self.half_life_images = float(half_life_images)
        self.ramp = float(ramp)
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
        half_life = min(self.half_life_images, self.ramp * images_seen)
        # 1 - beta, small for long half-lives: subtracting beta from 1 would lose its digits.
        step = -math.expm1(-math.log(2) * (images_seen - self.images_seen) / half_life)
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
        state["half_life_images"] = torch.tensor(self.half_life_images, dtype=torch.float64)
        state["ramp"] = torch.tensor(self.ramp, dtype=torch.float64)
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from what :meth:`state_dict` gave.

        Raises:
            ValueError: if the state belongs to another architecture, half-life or ramp; this EMA is then unchanged.
        """
        own = {"half_life_images": self.half_life_images, "ramp": self.ramp}
        theirs = {n: state[n].item() if n in state else None for n in own}
        if theirs != own or "images_seen" not in state:
            raise ValueError(
                f"state must be that of an EMA with {own}, got {theirs}; load it into the EMA that saved it"
            )
        averages = {n.removeprefix("average."): v for n, v in state.items() if n.startswith("average.")}
        _copy(averages, self._parameters | self._buffers, "state")
        self.images_seen = int(state["images_seen"])


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
