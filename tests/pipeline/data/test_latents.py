"""The data stage with an autoencoder: every image and every mirror image is encoded once, whatever interrupts it."""

from __future__ import annotations

import errno
import logging
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.data import autoencoder as module
from pipeline.data import latents
from pipeline.data.autoencoder import Autoencoder
from pipeline.data.examples import Examples
from pipeline.data.latents import LATENTS, encode_all
from pipeline.data.sources import load
from pipeline.outputs.images import decoder
from pipeline.recipe.sections import Data
from pipeline.stages import data as stage
from storage.errors import DamageError, DataError, Interrupted
from storage.imageset import ImageSet
from tests.pipeline.data.autoencoders import make_autoencoder
from tests.pipeline.jobs import job

# Imported where it is used: that takes seconds.
pytestmark = pytest.mark.skipif(find_spec("diffusers") is None, reason="diffusers is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    make_autoencoder(folder)
    return folder


def prepared(work, folder, **changes):
    made = job(work, "data")
    made.config = Data(source="digits", limit=20, autoencoder=folder, **changes)
    return made


@torch.no_grad()
def direct(folder, images):
    """Of images uint8 (N, 1, 8, 8) of 17 levels, by diffusers alone."""
    from diffusers import AutoencoderKL

    x = torch.from_numpy(images.astype(np.float32)) / 8 - 1
    return (AutoencoderKL.from_pretrained(folder).encode(x).latent_dist.mean.numpy() - 0.1) * 4


def test_latents_are_those_of_the_images_and_of_their_mirror_images(tmp_path, folder):
    made = prepared(tmp_path, folder, flips=True)
    result = stage.run(made)
    found = ImageSet.open(made.out / stage.IMAGES)
    loaded = load(made.config)
    assert (result.train, result.test, result.channels, result.size, result.levels) == (20, 20, 4, 4, 17)
    assert found.train.images.shape == (40, 4, 4, 4)
    np.testing.assert_allclose(found.train.images[:20], direct(folder, loaded.train.images), atol=1e-5)
    np.testing.assert_allclose(found.train.images[20:], direct(folder, loaded.train.images[..., ::-1]), atol=1e-5)
    np.testing.assert_allclose(found.test.images, direct(folder, loaded.test.images), atol=1e-5)
    assert np.abs(found.train.images[20:] - found.train.images[:20, ..., ::-1]).max() > 0.01  # why both are encoded
    np.testing.assert_array_equal(found.originals.train.images, loaded.train.images)
    examples = Examples(found.train.images, found.train.labels, found.levels, flips=True)
    assert len(examples) == 40
    np.testing.assert_array_equal(examples.classes(torch.arange(40)), np.tile(loaded.train.labels, 2))
    np.testing.assert_array_equal(examples.pixels(torch.tensor([3, 23])), found.train.images[[3, 23]])


def test_the_artifact_decodes_without_the_folder(tmp_path, folder):
    made = prepared(tmp_path, folder)
    stage.run(made)

    class Published:
        root = made.out

        def path(self, name):
            return made.out / name

    latents = torch.from_numpy(ImageSet.open(made.out / stage.IMAGES).test.images)
    copy = made.out / stage.AUTOENCODER
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == {
        file.name: file.read_bytes() for file in folder.iterdir()
    }
    torch.testing.assert_close(decoder(Published(), "cpu")(latents), Autoencoder.load(folder).decode(latents))
    (copy / "config.json").write_text("{")
    with pytest.raises(DamageError, match="--force data"):
        decoder(Published(), "cpu")


def test_a_stopped_encoding_goes_on_and_ends_with_the_same_bits(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(module, "BATCH_PIXELS", 16 * 64)  # pieces of 16 among 20 + 20 images
    stage.run(prepared(tmp_path / "whole", folder))
    encoded = []
    original = Autoencoder.encode
    monkeypatch.setattr(Autoencoder, "encode", lambda self, x: encoded.append(len(x)) or original(self, x))
    stopped = prepared(tmp_path / "stopped", folder)
    stopped.stop.request("test")
    with pytest.raises(Interrupted):
        stage.run(stopped)
    assert encoded == [16]
    stage.run(prepared(tmp_path / "stopped", folder))
    assert encoded == [16, 16, 8]
    whole, again = (ImageSet.open(tmp_path / name / "out" / stage.IMAGES) for name in ("whole", "stopped"))
    assert whole.facts == again.facts


@pytest.mark.parametrize("at", [-100, 200, 10])  # in the second piece, in the first, in the heading
def test_damaged_latents_are_encoded_again(tmp_path, folder, monkeypatch, at):
    monkeypatch.setattr(module, "BATCH_PIXELS", 16 * 64)
    stage.run(prepared(tmp_path / "whole", folder))
    stopped, pieces = prepared(tmp_path / "stopped", folder), []

    def after_two() -> None:
        pieces.append(1)
        if len(pieces) == 2:
            raise Interrupted("stopped")

    monkeypatch.setattr(stopped, "pause_point", after_two)
    with pytest.raises(Interrupted):
        stage.run(stopped)
    file = stopped.work / LATENTS
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)
    stage.run(prepared(tmp_path / "stopped", folder))
    whole, again = (ImageSet.open(tmp_path / name / "out" / stage.IMAGES) for name in ("whole", "stopped"))
    assert whole.facts == again.facts


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(tmp_path, folder, monkeypatch):
    def full(path, mode="r"):
        return open(*(("/dev/full", "wb", 0) if mode == "r+b" else (path, mode)))

    monkeypatch.setattr(latents, "open", full, raising=False)
    with pytest.raises(OSError) as raised:
        stage.run(prepared(tmp_path, folder))
    assert raised.value.errno == errno.ENOSPC


def test_a_side_that_does_not_fit_is_found_before_any_image_is_read(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(stage, "load", lambda config: pytest.fail("read"))
    made = prepared(tmp_path, folder)
    made.config = Data(source="mnist", autoencoder=folder, size=7)
    with pytest.raises(DataError):
        stage.run(made)


def test_images_the_autoencoder_does_not_take(tmp_path):
    make_autoencoder(tmp_path / "rgb", channels=3)
    with pytest.raises(DataError):
        stage.run(prepared(tmp_path / "work", tmp_path / "rgb"))


@pytest.mark.parametrize(("scale", "warned"), [(0.4, True), (4.0, False), (40.0, True)])
def test_latents_far_from_the_noise_are_warned_of(tmp_path, caplog, scale, warned):
    make_autoencoder(tmp_path / "vae", scaling_factor=scale)
    made = prepared(tmp_path / "work", tmp_path / "vae")
    with caplog.at_level(logging.WARNING, "pipeline.data.latents"):
        parts = encode_all(made, Autoencoder.load(tmp_path / "vae"), load(made.config), False)
    spread = np.concatenate(parts).std(dtype=np.float64)
    assert (0.5 < spread < 2) != warned
    assert (f"standard deviation of {spread:.3g}" in caplog.text) == warned
