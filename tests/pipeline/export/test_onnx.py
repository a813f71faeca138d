"""ONNX of the velocity network: equal to it at any batch, or not there."""

import importlib.util
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from models.dit import DiT, DiTConfig
from pipeline.export._onnx import TOLERANCE, OnnxError, require_onnx, write_onnx
from storage.errors import InputError, UsageError
from tests.pipeline.jobs import tiny_unet

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")


def trained(network):
    """Weights as if trained: fresh ones answer zero to everything."""
    torch.manual_seed(0)
    for p in network.parameters():
        nn.init.normal_(p, std=0.15)
    return network.eval().requires_grad_(False)


def unet():
    return trained(tiny_unet())


def dit():
    """Of average velocities, without classes."""
    return trained(DiT(DiTConfig(channels=2, size=4, patch=2, width=8, depth=1, heads=2, interval=True)))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "network.onnx"
    checked = write_onnx(dit(), path)
    assert 0 <= checked.difference <= TOLERANCE and checked.opset >= 18
    return path


@pytest.mark.slow
def test_a_network_of_average_velocities_takes_the_other_end_too(written):
    network, session = dit(), onnxruntime.InferenceSession(written)
    assert [put.name for put in session.get_inputs()] == ["x", "t", "r"]
    feed = {"x": torch.randn(5, 2, 4, 4), "t": torch.ones(5), "r": torch.zeros(5)}
    answers = [
        torch.from_numpy(session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})[0])
        for inputs in (feed, feed | {"r": feed["t"]})
    ]
    torch.testing.assert_close(answers[0], network(**feed), atol=1e-4, rtol=1e-4)
    assert (answers[0] - answers[1]).abs().max() > 0.01


def test_a_network_of_classes_takes_labels_too(tmp_path):
    network, path = unet(), tmp_path / "network.onnx"
    write_onnx(network, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [put.name for put in session.get_inputs()] == ["x", "t", "labels"]
    assert [put.shape[0] for put in session.get_inputs()] == ["batch"] * 3
    x, t, labels = torch.randn(7, *network.config.shape), torch.rand(7), torch.arange(7) % 4 - 1
    (answer,) = session.run(["velocity"], {"x": x.numpy(), "t": t.numpy(), "labels": labels.numpy()})
    expected = network(x, t, labels)
    torch.testing.assert_close(torch.from_numpy(answer), expected, rtol=0, atol=TOLERANCE * expected.abs().max().item())


@pytest.mark.parametrize(
    "wrong", [lambda data, path: path.write_bytes(data), lambda data, path: path.write_bytes(data[:-9])]
)
def test_a_file_that_does_not_answer_as_the_network_is_removed(written, tmp_path, monkeypatch, wrong):
    """The exporter is taken to have written another network's weights, or half a file."""
    network, data = dit(), written.read_bytes()
    network.enter.weight.mul_(1.01)
    program = SimpleNamespace(save=lambda path, external_data: wrong(data, path))
    monkeypatch.setattr(torch.onnx, "export", lambda *args, **kwargs: program)
    with pytest.raises(OnnxError):
        write_onnx(network, tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())


def test_an_operation_that_onnx_lacks_is_named(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise RuntimeError("No decomposition for aten.newest\nmore")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(InputError) as raised:
        write_onnx(dit(), tmp_path / "network.onnx")
    assert raised.value.value == "DiT: No decomposition for aten.newest"


def test_a_missing_package_is_named(monkeypatch):
    require_onnx()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(UsageError) as raised:
        require_onnx()
    assert raised.value.value == "onnxscript: not installed"
