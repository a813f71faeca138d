"""Latents are what diffusers itself computes, scaled as the autoencoder says; anything else is refused by name."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.data import autoencoder as module
from pipeline.data.autoencoder import Autoencoder
from storage.errors import DataError, UsageError
from tests.pipeline.data.autoencoders import make_autoencoder

# Imported where it is used: that takes seconds.
pytestmark = pytest.mark.skipif(find_spec("diffusers") is None, reason="diffusers is not installed")

WEIGHTS = "diffusion_pytorch_model.safetensors"


def images(count=3, channels=1, size=8):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


@torch.no_grad()
def test_scale_and_shift_of_the_posterior_mean(tmp_path):
    network = make_autoencoder(tmp_path)
    found, x = Autoencoder.load(tmp_path), images()
    posterior = network.encode(x).latent_dist
    z = found.encode(x)
    assert z.shape == (3, *found.space.latent_shape(1, 8)) == (3, 4, 4, 4)
    torch.testing.assert_close(z, (posterior.mean - 0.1) * 4)
    assert (posterior.std > 0.1).all() and torch.equal(z, found.encode(x))  # there is noise to draw, and none is drawn
    torch.testing.assert_close(found.decode(z), network.decode(posterior.mean).sample)


@torch.no_grad()
def test_a_mean_and_deviation_for_each_channel(tmp_path):
    mean, std = [0.1, -0.2, 0.3, 0.0], [1.0, 2.0, 3.0, 4.0]
    network = make_autoencoder(tmp_path, latents_mean=mean, latents_std=std, shift_factor=None, scaling_factor=2.0)
    found, x = Autoencoder.load(tmp_path), images()
    raw = network.encode(x).latent_dist.mean
    for channel in range(4):
        torch.testing.assert_close(found.encode(x)[:, channel], (raw[:, channel] - mean[channel]) * 2 / std[channel])
    torch.testing.assert_close(found.decode(found.encode(x)), network.decode(raw).sample)


@torch.no_grad()
def test_without_a_shift(tmp_path):
    network = make_autoencoder(tmp_path, shift_factor=None)
    torch.testing.assert_close(
        Autoencoder.load(tmp_path).encode(images()), 4 * network.encode(images()).latent_dist.mean
    )


def test_pieces_change_nothing_but_rounding(tmp_path, monkeypatch):
    make_autoencoder(tmp_path)
    found, x = Autoencoder.load(tmp_path), images(5)
    assert module.batch(8) == 2**19 // 64 and module.batch(1024) == 1
    z = found.encode(x)
    whole = found.decode(z)
    monkeypatch.setattr(module, "BATCH_PIXELS", 2 * 64)
    assert module.batch(8) == 2
    torch.testing.assert_close(found.encode(x), z)
    torch.testing.assert_close(found.decode(z), whole)


def test_half_precision_weights_are_used_in_float32(tmp_path):
    make_autoencoder(tmp_path)
    save_file({key: value.half() for key, value in load_file(tmp_path / WEIGHTS).items()}, tmp_path / WEIGHTS)
    assert Autoencoder.load(tmp_path).encode(images()).dtype == torch.float32


def test_images_that_do_not_fit(tmp_path):
    make_autoencoder(tmp_path, channels=3)
    found = Autoencoder.load(tmp_path)
    assert found.space.latent_shape(3, 32) == (4, 16, 16)
    for channels, size, value in ((1, 32, 1), (3, 33, 33)):
        with pytest.raises(DataError) as error:
            found.space.latent_shape(channels, size)
        assert error.value.value == value


def test_what_is_no_autoencoder(tmp_path):
    def refused(value):
        with pytest.raises(DataError) as error:
            Autoencoder.load(tmp_path)
        assert value in error.value.value

    make_autoencoder(tmp_path)
    config, weights = json.loads((tmp_path / "config.json").read_text()), load_file(tmp_path / WEIGHTS)
    (tmp_path / "config.json").write_text(json.dumps({**config, "_class_name": "VQModel"}))
    refused("VQModel")
    (tmp_path / "config.json").write_text("{")
    refused("JSONDecodeError")
    (tmp_path / "config.json").write_text(json.dumps({**config, "down_block_types": ["Nonsense"] * 2}))
    refused("Nonsense")
    (tmp_path / "config.json").write_text(json.dumps({**config, "block_out_channels": [8, 16]}))
    refused("")
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({key: value for key, value in weights.items() if key != "decoder.conv_in.bias"}, tmp_path / WEIGHTS)
    refused("['decoder.conv_in.bias']")
    (tmp_path / WEIGHTS).write_bytes(b"torn")
    refused("")


def test_without_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError):
        Autoencoder.load(tmp_path)


def test_older_names_of_the_attention_are_read(tmp_path):
    """Weights published early, such as those of Stable Diffusion, call its layers query, key, value and proj_attn."""
    make_autoencoder(tmp_path)
    expected = Autoencoder.load(tmp_path).encode(images())
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for key, value in load_file(tmp_path / WEIGHTS).items():
        new = next((name for old, name in names.items() if f"attentions.0.{old}." in key), None)
        old = next((old for old in names if names[old] == new), "")
        renamed[key.replace(f".{old}.", f".{new}.") if new else key] = value
    assert sum("proj_attn" in key for key in renamed) == 4
    save_file(renamed, tmp_path / WEIGHTS)
    assert torch.equal(Autoencoder.load(tmp_path).encode(images()), expected)
