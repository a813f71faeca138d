"""The velocity network in ONNX, checked against the network itself."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from models.velocity import VelocityNetwork
from storage.errors import FlowctlError, InputError, UsageError
from storage.required import required

ONNX = "network.onnx"
TOLERANCE = 1e-4  # largest difference, in units of the largest velocity: far below a grey level of 8 bits
BATCHES = (1, 3)
INLINE = 2**31 - 2**24  # bytes; protobuf holds no file of 2 GiB, so larger weights go into a second file


class OnnxError(FlowctlError):
    """The exported ONNX file does not reproduce the network's output."""


@dataclass(frozen=True)
class Checked:
    """The largest difference between ONNX and the network, in units of the largest velocity."""

    difference: float
    opset: int


def require_onnx() -> None:
    """Raise UsageError unless the packages of the extra can be imported."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            "--onnx needs the packages onnx, onnxscript and onnxruntime",
            f"{', '.join(missing)}: not installed",
            "Install the extra: pip install -e '.[onnx]' in the project's folder.",
        )


def write_onnx(network: nn.Module, path: Path) -> Checked:
    """Write v = g(x, t, labels) as `path` and check ONNX Runtime's output against the network's.

    Inputs x (batch, C, H, W) float32, t (batch,) float32 and, for a network that knows classes, labels (batch,) int64
    in [-1, classes), -1 being the null class; for a network of average velocities r (batch,) float32, the other end of
    the interval, r = t for the velocity; output "velocity" (batch, C, H, W) float32. The batch is free. The check is on
    batches of 1 and 3, at times from 1 to 0, r = t / 2, and classes from the null class on.

    Args:
        network: in eval mode, on the CPU.
        path: the file; weights of 2 GiB and more go into `path`.data.

    Raises:
        InputError: ONNX lacks an operation of the network.
        OnnxError: ONNX Runtime cannot run it, or differs by more than 1e-4 of the largest velocity. The file is
            removed.
    """
    assert isinstance(network, VelocityNetwork)
    example = _inputs(network, 2)  # of a batch of 1 torch would take the 1 for fixed
    try:
        with _quiet():
            program = torch.onnx.export(  # one name for all three: a shared torch.export.Dim silently fixes the batch
                network,
                kwargs=example,
                dynamo=True,
                verbose=False,
                input_names=list(example),
                output_names=["velocity"],
                dynamic_shapes={name: {0: "batch"} for name in example},
            )
            size = sum(tensor.nbytes for tensor in network.state_dict().values())
            program = required(program, "the exported program")
            program.save(path, external_data=size > INLINE)
    except Exception as error:  # whatever torch's exporter and onnxscript raise
        _remove(path)
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            "ONNX must have every operation of the network",
            f"{type(network).__name__}: {line}",
            "Leave --onnx out; weights.safetensors holds the same network.",
        ) from error
    try:
        difference = max(_difference(network, path, _inputs(network, rows)) for rows in BATCHES)
    except Exception as error:  # ONNX Runtime's own
        _remove(path)
        raise OnnxError(f"ONNX Runtime must run the exported network, got {error}. Leave --onnx out.") from error
    if not difference <= TOLERANCE:
        _remove(path)
        raise OnnxError(
            f"ONNX Runtime must agree with the network to {TOLERANCE:g} of its largest velocity, got {difference:.2g}. "
            "Leave --onnx out."
        )
    return Checked(difference, program.model.opset_imports[""])


def _inputs(network: VelocityNetwork, rows: int) -> dict[str, Tensor]:
    config = network.config
    x = torch.randn(rows, config.channels, config.size, config.size, generator=torch.Generator().manual_seed(rows))
    inputs = {"x": x, "t": torch.linspace(1, 0, rows)}
    if config.classes:
        inputs["labels"] = torch.arange(rows) % (config.classes + 1) - 1
    if config.interval:
        inputs["r"] = inputs["t"] / 2
    return inputs


@torch.no_grad()
def _difference(network: VelocityNetwork, path: Path, inputs: dict[str, Tensor]) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feed = {put.name: inputs[put.name].numpy() for put in session.get_inputs()}
    (answer,) = session.run(["velocity"], feed)
    expected = network(**inputs)
    return ((torch.from_numpy(answer) - expected).abs().max() / expected.abs().max()).item()


def _remove(path: Path) -> None:
    for file in (path, path.with_name(path.name + ".data")):
        file.unlink(missing_ok=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages that have nothing to do with us."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
