"""Samples of an exported model: the ODE's own answers, and refusals that say what is wrong."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from models._samplers import METHODS, VelocitySampler
from models.load import load
from models.unet import UNet, UNetConfig

CONFIG = {
    "channels": 1,
    "size": 4,
    "base": 8,
    "multipliers": [1],
    "blocks": 1,
    "attention": [],
    "head_channels": 8,
    "classes": 2,
}


class Decay(nn.Module):
    """dx/dt = rate x, and a push that labels give: none for the null class."""

    def __init__(self, rate, push=0.0):
        super().__init__()
        self.rate, self.push = rate, push

    def forward(self, x, t, labels=None):
        assert t.shape == (len(x),)
        return self.rate * x + (0 if labels is None else self.push * (labels + 1)[:, None, None, None])


def facts(steps, guidance=1.0, classes=None, scales=None, noise_scale=1.0, temperature=1.0):
    """A way of these (solver, t, to); evaluations at arbitrary times, as a field without t does not care."""
    count = sum(len(METHODS[solver]) - 1 for solver, _, _ in steps)
    return {
        "shape": [1, 2, 2],
        "classes": classes,
        "images": {"levels": 17},
        "noise_scale": noise_scale,
        "recommended": 0,
        "ways": [
            {
                "nfe": count,
                "guidance": guidance,
                "temperature": temperature,
                "evaluations": [{"t": 0.5} | (scales or {})] * count,
                "steps": [{"solver": solver, "t": t, "to": to} for solver, t, to in steps],
            }
        ],
    }


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2), ("rk4", 4)])
def test_a_step_is_the_exponential_series_up_to_the_order(solver, order):
    z, rate = torch.ones(3, 1, 2, 2), 0.7
    x = VelocitySampler(Decay(rate), facts([(solver, 1.0, 0.4)]))(z)
    series = sum((rate * -0.6) ** k / math.factorial(k) for k in range(order + 1))
    torch.testing.assert_close(x, torch.full_like(z, series))


def test_many_small_steps_reach_the_solution():
    z = torch.ones(1, 1, 2, 2)
    x = VelocitySampler(Decay(1.3), facts([("rk4", 1 - i / 10, 0.9 - i / 10) for i in range(10)]))(z)
    torch.testing.assert_close(x, torch.full_like(z, math.exp(-1.3)), rtol=1e-5, atol=0)


def test_guidance_goes_on_beyond_the_class():
    """v = v_null + w (v_class - v_null), where v_null = 0 and v_class = label + 1."""
    labels = torch.tensor([0, 1])
    x = VelocitySampler(Decay(0, push=1.0), facts([("euler", 1.0, 0.0)], 3.0, ["a", "b"]))(
        torch.zeros(2, 1, 2, 2), labels
    )
    assert x[:, 0, 0, 0].tolist() == [-3.0, -6.0]


def test_scales_stand_around_the_network():
    """v = skip x + velocity_scale g(input_scale x), begun at noise_scale T z."""
    scales = {"input_scale": 0.5, "skip": 2.0, "velocity_scale": 3.0}
    x = VelocitySampler(Decay(10.0), facts([("euler", 1.0, 0.9)], scales=scales, noise_scale=2.0, temperature=2.0))(
        torch.ones(1, 1, 2, 2)
    )
    torch.testing.assert_close(x, torch.full_like(x, 4 - 0.1 * (2 * 4 + 3 * 10 * 0.5 * 4)))


def test_levels_are_the_nearest_halves_up():
    sampler = VelocitySampler(Decay(0), facts([]))
    images = torch.tensor([-1.2, -1.0, -1 + 1 / 16, -1 + 0.99 / 16, 0.0, 1.0, 1.3])
    assert sampler.quantise(images).tolist() == [0, 0, 1, 0, 8, 16, 16]


def test_what_a_call_must_have():
    sampler = VelocitySampler(Decay(0), facts([("euler", 1.0, 0.0)], classes=["a", "b"]))
    z = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match=r"int64 in \[0, 2\)"):
        sampler(z)
    with pytest.raises(ValueError, match=r"exported with the model \(1\), got 5"):
        sampler(z, torch.tensor([0]), nfe=5)


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    network = UNet(UNetConfig(**CONFIG))
    for p in network.parameters():
        nn.init.normal_(p, std=0.1)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    (tmp_path / "network.json").write_text(json.dumps({"kind": "unet", **CONFIG}))
    found = {"format": 2, **facts([("euler", 1.0, 0.0)], classes=["a", "b"]), "shape": [1, 4, 4]}
    (tmp_path / "sampler.json").write_text(json.dumps(found))
    return tmp_path


def test_a_folder_becomes_its_network(folder):
    sampler = load(folder)
    z, labels = torch.randn(3, *sampler.shape, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 1])
    x = sampler(z, labels)
    assert not x.requires_grad and (x - z).abs().max() > 0.01
    evaluation_time = torch.full((3,), 0.5)
    torch.testing.assert_close(x, z - sampler.network(z, evaluation_time, labels))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("sampler.json", '{"format": 3}'),
        ("network.json", '{"kind": "mlp"}'),
        ("network.json", "{"),
        ("network.json", json.dumps({"kind": "unet", **CONFIG, "base": 16})),
        ("weights.safetensors", "nothing"),
        ("sampler.json", None),
        ("weights.safetensors", None),
    ],
)
def test_what_is_no_export_is_refused(folder, name, content):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(ValueError, match=r"must hold the files of `flowctl export`.*export the model again"):
        load(folder)
