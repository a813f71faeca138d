"""What a student is told of the image that it shall make, and the held-out images that it is then asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.examples import Examples
from pipeline.lowres import low_resolution
from storage.errors import InputError
from storage.imageset import ImageSet

#: Images (B, C, H, W) in [-1, 1] -> what networks are told of them, (B, C, H, W).
Condition = Callable[[Tensor], Tensor]


def condition_of(spec: Mapping[str, Any] | None, levels: int | None) -> Condition | None:
    """The condition that a student's settings ask for, of images of so many grey levels; None for none."""
    return None if spec is None else partial(low_resolution, factor=spec["factor"], levels=levels)


@dataclass(frozen=True)
class HeldOut:
    """Test images in turn: sample number i is asked to be image `order[i mod N]`, given its class and its condition.

    Attributes:
        examples: the test split.
        spec: the student's settings of the condition.
        order: (N,) int64, rows of the test split.
    """

    examples: Examples
    spec: Mapping[str, Any]
    order: Tensor

    @classmethod
    def of(cls, images: ImageSet, spec: Mapping[str, Any] | None) -> HeldOut | None:
        """All test images in their order; None for a student without a condition."""
        if spec is None:
            return None
        test = Examples(images.test.images, images.test.labels, images.levels)
        return cls(test, spec, torch.arange(len(test)))

    def of_class(self, label: int) -> HeldOut:
        """The images of one class alone. Raises InputError where the test split has none."""
        labels = self.examples.classes(self.order)
        chosen = self.order[labels == label]
        if not len(chosen):
            raise InputError("Samples of a class are conditioned on its test images", f"none of class {label}",
                             "Ask for another class, or hold out more images: data.test_fraction")
        return replace(self, order=chosen)

    def images(self, rows: Tensor) -> Tensor:
        """(n, C, H, W) float32 in [-1, 1]: what samples number `rows` (n,) should come near."""
        return self.examples.pixels(self._places(rows))

    def labels(self, rows: Tensor) -> Tensor | None:
        """(n,) their classes; None where networks are told none."""
        return self.examples.classes(self._places(rows))

    def conditions(self, rows: Tensor) -> Tensor:
        """(n, C, H, W) float32: what the network is told of them."""
        return condition_of(self.spec, self.examples.levels)(self.images(rows))

    def bicubic(self, rows: Tensor) -> Tensor:
        """(n, C, H, W) float32: the small images enlarged by bicubic interpolation (Keys 1981, with a = -0.75).

        What needs no network, to hold samples against.
        """
        factor = self.spec["factor"]
        small = self.conditions(rows)[:, :, ::factor, ::factor]
        return F.interpolate(small, scale_factor=factor, mode="bicubic", align_corners=False)

    def _places(self, rows: Tensor) -> Tensor:
        return self.order[rows % len(self.order)]
