"""What a teacher is fitted to, on which data, and the bits that it reports: against densities written out."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from models.tarflow import TarFlow, TarFlowConfig
from pipeline.data.batches import NoisyImages
from pipeline.data.examples import Examples
from pipeline.recipe.load import load
from pipeline.runtime.job import Job, Progress
from pipeline.runtime.noise import noise
from pipeline.runtime.seeds import derive, generator
from pipeline.stages import teacher
from pipeline.training import fit
from tests.models.test_tarflow import random_flow
from tests.pipeline.jobs import job, training
from tests.pipeline.stages.test_stages import run
from tests.tiny import TINY

SMALL = TarFlowConfig(channels=1, size=4, patch=2, width=16, blocks=2, layers=1, head_dim=8, classes=3)
CPU = torch.device("cpu")


def test_the_loss_is_minus_the_log_density_per_dimension_less_a_constant():
    flow, draws = random_flow(SMALL), generator(0)
    part = NoisyImages(torch.randn(6, 1, 4, 4, generator=draws).double(), torch.tensor([0, 1, 2, -1, 1, 0]))
    _, logdet = flow(part.y, part.labels)
    assert logdet.abs().min() > 0.01  # else its sign would not show
    expected = -flow.log_prob(part.y, part.labels).mean() / 16 - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(teacher.nats_per_dimension(flow, part), expected)


def test_training_finds_the_scale_of_gaussian_data(tmp_path):
    """x = 0.1 eps: the loss of the identity is 0.005, that of the truth 1/2 + log(0.1) = -1.8."""
    torch.manual_seed(0)
    flow = TarFlow(SMALL)

    def batch(step: int) -> NoisyImages:
        return NoisyImages(0.1 * torch.randn(32, 1, 4, 4, generator=generator(step)), None)

    history = fit(job(tmp_path), flow, batch, teacher.nats_per_dimension, training(clip=None), CPU).history
    losses = [line["loss"] for line in history]
    assert len(losses) == 20 and losses[0] == pytest.approx(0.005, abs=0.001)
    assert 0.5 + math.log(0.1) < losses[-1] < -0.8


@pytest.mark.slow
def test_one_flow_learns_the_scale_at_every_noise_level(tmp_path):
    """x = 0, so y = eta eps: z = y / eta is the truth at each eta, and the loss weighs an image by its eta."""
    torch.manual_seed(0)
    flow = TarFlow(replace(SMALL, noise_std=0.2))

    def batch(step: int) -> NoisyImages:
        draws = generator(step)
        eta = 0.1 + 0.4 * torch.rand(64, generator=draws)
        return NoisyImages(eta[:, None, None, None] * torch.randn(64, 1, 4, 4, generator=draws), None, eta)

    part = batch(0)
    nats = 0.5 * part.y.square().flatten(1).mean(1)  # of the identity, which an untrained flow is
    loss = partial(teacher.nats_per_dimension, mean_level=0.3)
    torch.testing.assert_close(loss(flow, part), (part.noise_std * nats).mean() / 0.3)
    parts = [loss(flow, one) for one in part.parts(8)]  # divided as by `accumulate`, it is the same
    torch.testing.assert_close(torch.stack(parts).mean(), loss(flow, part))
    fitted = fit(job(tmp_path), flow, batch, loss, training(clip=None, images=19200), CPU).network
    for eta in (0.1, 0.2, 0.5):
        y = eta * torch.randn(500, 1, 4, 4, generator=generator(9))
        z, _ = fitted(y, None, torch.full((500,), eta))
        assert z.std().item() == pytest.approx(1, abs=0.2)
    assert fitted.encode(y * 0.2 / 0.5).std().item() == pytest.approx(1, abs=0.2)  # at the level of the config


# --- data


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return run(tmp_path_factory.mktemp("home"), until="data")["data"]


def job_of(data, work, **changes):
    recipe = load("nfm-digits", [*TINY, "compute.inference_batch=7"])
    config = recipe.sections()["teacher"].model_copy(update=changes)
    return Job("teacher", config, {"data": data}, work, recipe.compute, Progress("teacher", work))


class Fitting(Exception):
    """Instead of a training: what it was asked for."""


def asked(monkeypatch, job):
    def fitting(job, flow, batch, loss, *_, **__):
        raise Fitting(batch, loss)

    monkeypatch.setattr(teacher, "fit", fitting)
    with pytest.raises(Fitting) as found:
        teacher.run(job)
    return found.value.args


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_stage_fits_its_loss_to_images_a_share_of_which_has_lost_its_label(data, tmp_path, monkeypatch, share):
    batch, loss = asked(monkeypatch, job_of(data, tmp_path, label_drop=share))
    assert loss is teacher.nats_per_dimension
    dropped = torch.cat([batch(step).labels for step in range(10)]) == -1
    assert abs(float(dropped.double().mean()) - share) < (0.06 if 0 < share < 1 else 1e-9)  # 640 of them: 3 sigma


def test_the_noise_level_of_each_image_is_drawn_between_both_ends(data, tmp_path, monkeypatch):
    clean, _ = asked(monkeypatch, job_of(data, tmp_path / "clean", noise_std=1e-6))
    batch, _ = asked(monkeypatch, job_of(data, tmp_path / "levels", noise_std=0.3, noise_levels=(0.1, 0.5)))
    parts = [batch(step) for step in range(10)]
    eta = torch.cat([part.noise_std for part in parts])
    assert 0.1 <= eta.min() < 0.12 and 0.48 < eta.max() < 0.5 and abs(eta.mean() - 0.3) < 0.02
    x = clean(0)
    assert torch.equal(parts[0].labels, x.labels) and x.noise_std is None
    noises = (parts[0].y - x.y).flatten(1) / parts[0].noise_std[:, None]
    assert noises.std(1).mean().item() == pytest.approx(1, abs=0.03) and noises.std(1).std() < 0.15


@pytest.mark.parametrize("levels", [17, None])
def test_bits_are_those_of_the_density_and_the_width_of_a_grey_level(data, tmp_path, levels):
    """Latents, which have no levels, keep their differential entropy."""
    task = job_of(data, tmp_path, noise_std=0.3)
    flow, draws = random_flow(SMALL, dtype=torch.float32), np.random.default_rng(0)
    images = (
        draws.integers(0, 17, (20, 1, 4, 4), dtype=np.uint8)
        if levels
        else draws.standard_normal((20, 1, 4, 4), dtype=np.float32)
    )
    examples = Examples(images, np.arange(20) % 3, levels)
    rows = torch.arange(20)
    address = (derive(task.config.seed, "teacher", "held-out"), rows, torch.zeros_like(rows), (1, 4, 4))
    x = torch.from_numpy(images / 8 - 1 if levels else images).float()
    y = x + 0.3 * noise(*address)
    nats = flow.log_prob(y, examples.classes(rows)) / 16 + (math.log(1 / 8) if levels else 0)
    bits = -nats.mean().item() / math.log(2)
    assert teacher.bits_of(flow, examples, task, CPU) == pytest.approx(bits, rel=1e-5)
