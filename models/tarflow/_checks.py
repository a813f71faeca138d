"""Checks of a flow's inputs, before any work is done."""

import torch
from torch import Tensor

from models.tarflow._config import TarFlowConfig


def check_images(images: Tensor, config: TarFlowConfig, dtype: torch.dtype) -> None:
    """Raise ValueError unless ``images`` are (B, C, size, size) of the flow's own dtype."""
    if images.dim() != 4 or images.shape[1:] != config.shape:
        raise ValueError(
            f"images must be (B, {', '.join(map(str, config.shape))}), got {tuple(images.shape)}; "
            "resize them, or build the flow for their size"
        )
    if images.dtype != dtype:
        raise ValueError(
            f"images must have the dtype of the flow's weights, {dtype}, got {images.dtype}; "
            "convert them, with pixels scaled to [-1, 1]"
        )


def check_labels(labels: Tensor | None, batch: int, classes: int) -> None:
    """Raise ValueError unless ``labels`` is None, or (B,) of int64 from -1 (dropped) to ``classes - 1``."""
    if labels is None:
        return
    if not classes:
        raise ValueError("labels must be None for an unconditional flow; set classes in its config to use them")
    if labels.shape != (batch,) or labels.dtype != torch.int64:
        raise ValueError(f"labels must be int64 of shape ({batch},), got {labels.dtype} of {tuple(labels.shape)}")
    # Looking at values would make a GPU wait, and break a compiled graph in two.
    if labels.device.type != "cpu" or torch.compiler.is_compiling() or not batch:
        return
    low, high = int(labels.min()), int(labels.max())
    if low < -1 or high >= classes:
        raise ValueError(f"labels must lie in -1 .. {classes - 1}, got {low} to {high}; use -1 for a dropped label")


def first_bad_row(values: Tensor) -> int | None:
    """Index of the first row of (B, ...) that holds an infinity or NaN, or None."""
    good = torch.isfinite(values).flatten(1).all(dim=1)
    return None if bool(good.all()) else int(torch.nonzero(~good)[0])
