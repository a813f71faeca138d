"""Checkpoints of training: safetensors plus a checksummed JSON record; the last two are not deleted.

The record is written after the tensors and holds their SHA-256 and its own, so that a torn or flipped file is noticed
and the one before it is used.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipeline.outputs.tensorfile import write_tensors
from storage.atomic import ABSENT, sha256_file
from storage.checksummed_json import read_checksummed, write_checksummed

log = logging.getLogger(__name__)
CHECKPOINTS_KEPT = 2


def save_checkpoint(folder: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Publish a checkpoint, then drop all but the newest `CHECKPOINTS_KEPT`."""
    path = folder / f"step-{step:09d}.safetensors"
    write_tensors(path, tensors)
    facts = {"step": step, "sha256": sha256_file(path), "state": dict(state)}
    write_checksummed(path.with_suffix(".json"), facts)
    # Later ones are damaged, or training would have resumed from them: they must not push out valid ones.
    records = sorted(folder.glob("step-*.json"))
    keep = [record for record in records if record.stem <= path.stem][-CHECKPOINTS_KEPT:]
    for record in records:
        if record not in keep:
            record.unlink()
    for file in folder.glob("step-*.safetensors"):  # those of killed processes too, which have no record
        if file.with_suffix(".json") not in keep:
            file.unlink()


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and state of the newest valid checkpoint; None if there is none.

    Raises OSError for one that cannot be read and may be whole: a training from an earlier one would remove it.
    """
    for record in sorted(folder.glob("step-*.json"), reverse=True):
        try:
            facts = read_checksummed(record)
            if facts is None:
                raise ValueError("its record is damaged")
            tensors = record.with_suffix(".safetensors")
            if sha256_file(tensors) != facts["sha256"]:
                raise ValueError("SHA-256 differs from the recorded one")
            return load_file(tensors), facts["state"]
        except (*ABSENT, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            log.warning("checkpoint %s is damaged (%s): using the one before it", record.stem, error)
    return None


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by parameter position and name, as tensors."""
    return {
        f"optimizer.{index}.{key}": torch.as_tensor(value)
        for index, slots in optimizer.state_dict()["state"].items()
        for key, value in slots.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The reverse of `flatten_optimizer`; the parameter groups stay as they were built.

    Fused kernels walk through memory, so a moment must lie in it as its parameter does (channels last, say).
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            like = parameters[int(index)]
            alike = tensor.shape == like.shape
            slots.setdefault(int(index), {})[key] = torch.empty_like(like).copy_(tensor) if alike else tensor
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
