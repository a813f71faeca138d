"""Files of tensors, in the safetensors format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from storage.atomic import replacing

#: Types by their names in the format, in its order: tensors lie in the file from the last to the first.
TYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
}
ALIGNMENT = 8  # of the first tensor, in bytes


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Publish tensors as `path`, whole or not at all, in the bytes of `safetensors.torch.save`.

    They are written one by one from where they lie. `save` holds the file in memory, twice: 26 GB for a checkpoint of
    nfm-imagenet64's teacher. `save_file` publishes it itself, readable by its owner alone.

    Raises:
        OSError: the disk is full, or cannot be written.
    """
    order = list(TYPES)
    names = sorted(tensors, key=lambda name: (-order.index(tensors[name].dtype), name))
    header: dict[str, object] = {} if metadata is None else {"__metadata__": dict(metadata)}
    end = 0
    for name in names:
        tensor = tensors[name]
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with replacing(path) as aside, open(aside, "wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            stream.write(tensors[name].detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
