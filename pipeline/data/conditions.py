"""Conditions of image-to-image students, and the images that they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.data.examples import Examples, drawn
from pipeline.data.levels import quantise, to_unit
from storage.errors import DataError, RecipeError
from storage.imageset import ImageSet
from storage.required import required

#: Images (B, C, H, W) in [-1, 1] -> the condition that networks get, (B, C, H, W).
Condition = Callable[[Tensor], Tensor]


def condition_of(spec: Mapping[str, Any] | None, levels: int | None) -> Condition | None:
    """The condition of a student's settings, of images with `levels` grey levels; None for none."""
    return None if spec is None else _low_resolution(spec, levels)


def _low_resolution(spec: Mapping[str, Any], levels: int | None) -> Condition:
    return partial(low_resolution, factor=spec["factor"], levels=required(levels, "the number of grey levels"))


@dataclass(frozen=True)
class TargetImages:
    """Images of a split in turn: sample number i is asked to be image `order[i mod N]`, given its class and its
    condition.

    Attributes:
        examples: the split.
        spec: the student's settings of the condition.
        order: (N,) int64, rows of the split.
    """

    examples: Examples
    spec: Mapping[str, Any]
    order: Tensor
    split: Literal["train", "test"] = "test"

    @classmethod
    def of(
        cls, images: ImageSet, spec: Mapping[str, Any] | None, split: Literal["train", "test"] = "test"
    ) -> TargetImages | None:
        """All images of a split, mixed; None for a student without a condition."""
        if spec is None:
            return None
        examples = Examples.of(images, split)
        return cls(examples, spec, drawn(len(examples), len(examples)), split)

    @property
    def words(self) -> str:
        """The condition as a protocol states it."""
        return f"{self.spec['kind']} {self.spec['factor']} of the {self.split} split, {len(self.order)} images in turn"

    def of_class(self, label: int) -> TargetImages:
        """The images of one class alone. Raises DataError where the test split has none."""
        labels = self.examples.classes(self.order)
        chosen = self.order[labels == label]
        if not len(chosen):
            raise DataError(
                "A class must have test images to condition its samples on",
                f"none of class {label}",
                "Ask for another class, or raise data.test_fraction.",
            )
        return replace(self, order=chosen)

    def images(self, rows: Tensor) -> Tensor:
        """(n, C, H, W) float32 in [-1, 1]: the targets of samples number `rows` (n,)."""
        return self.examples.pixels(self._places(rows))

    def labels(self, rows: Tensor, device: torch.device | str = "cpu") -> Tensor | None:
        """(n,) their classes; None for networks without classes."""
        labels = self.examples.classes(self._places(rows))
        return None if labels is None else labels.to(device)

    def conditions(self, rows: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """(n, C, H, W) float32: their conditions."""
        return _low_resolution(self.spec, self.examples.levels)(self.images(rows)).to(device)

    def bicubic(self, rows: Tensor) -> Tensor:
        """(n, C, H, W) float32: the small images enlarged without a network, by bicubic interpolation (Keys 1981, IEEE
        TASSP 29(6), with its a = -1/2)."""
        factor = self.spec["factor"]
        small = self.conditions(rows)[:, :, ::factor, ::factor]
        # In enlarging, antialiasing changes a alone: without it torch has a = -3/4, which bends straight lines.
        return F.interpolate(small, scale_factor=factor, mode="bicubic", align_corners=False, antialias=True)

    def _places(self, rows: Tensor) -> Tensor:
        return self.order[rows % len(self.order)]


def low_resolution(x: Tensor, factor: int, levels: int = 256) -> Tensor:
    """Average blocks of `factor` x `factor` pixels, round to grey levels, repeat each to the block's size.

    Images are taken as they would be stored: values between levels are rounded first, as by `quantise`. Means of levels
    are exact, halves go up.

    Args:
        x: (B, C, H, W) floating in [-1, 1], such as `Examples.pixels`. Not latents: they have no grey levels.
        factor: old side divided by new side; 1 gives x rounded.
        levels: grey levels of the data.

    Returns:
        (B, C, H, W) float32 on the device of x, constant on each block.

    Raises:
        RecipeError: H or W is no multiple of `factor`. InputError: as for `quantise`.
    """
    batch, channels, height, width = x.shape
    if factor < 1 or height % factor or width % factor:
        raise RecipeError(f"factor must divide the sides of images of {height}x{width}", factor, "Choose a divisor.")
    grey = torch.from_numpy(quantise(x.detach().cpu().numpy(), levels)).long()
    blocks = grey.view(batch, channels, height // factor, factor, width // factor, factor)
    area = factor**2
    small = (2 * blocks.sum((3, 5)) + area) // (2 * area)  # in integers, so no mean of levels falls just below its half
    values = torch.from_numpy(to_unit(small.to(torch.uint8).numpy(), levels))
    return values.repeat_interleave(factor, 2).repeat_interleave(factor, 3).to(x.device)
