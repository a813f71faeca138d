"""The teacher: a TarFlow fitted by maximum likelihood on noisy images."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from models.tarflow import Schedule, Sequential, TarFlow, bits_per_dimension, calibrate, full_precision
from pipeline.data.batches import NoisyImages
from pipeline.data.examples import Examples, drop_labels
from pipeline.data.labels import rows_like
from pipeline.flow_matching.likelihood import bin_width
from pipeline.flow_matching.sampling import class_labels, guidance_of, starting_noise, teacher_samples
from pipeline.outputs import networks
from pipeline.outputs.images import decoder, images_of
from pipeline.outputs.results import TeacherResult
from pipeline.recipe.sections import Teacher
from pipeline.reporting.pictures import labelled_rows
from pipeline.runtime import ranks
from pipeline.runtime.device import prepare
from pipeline.runtime.job import Job
from pipeline.runtime.noise import noise
from pipeline.runtime.seeds import derive, generator
from pipeline.training import Watch, fit
from pipeline.training.maximum_likelihood import nats_per_dimension
from storage.imageset import ImageSet

CALIBRATION_IMAGES = 32
HELD_OUT_BITS = "bits per dimension of held-out images"
CALIBRATION_CALL = 256.0  # cost of a network call in tokens: a constant, so that the schedule depends on no clock


def run(job: Job[Teacher]) -> TeacherResult | None:
    """Train the normalizing flow f that couples noise and images.

    Inputs: `data`.

        y = x + eta eps,  eps ~ N(0, I)        maximise log p(y | c) = log N(f(y, c); 0, I) + log |det df/dy|

    TarFlow, Zhai et al. 2024 (arXiv 2412.06329): the change of variables under a standard normal prior, on images with
    Gaussian noise. With `noise_levels` eta is drawn from U(low, high) for each image, f is given it, and an image
    counts by its eta (iTARFlow).

    Leaves: the flow with its averages, history.jsonl, samples.png. The result has bits per dimension of held-out
    and training images, and the decoding schedule of each block. With `quality.use: best` the flow has the weights of
    the least held-out bits.
    """
    device = prepare(job.compute)
    images = images_of(job)
    config = job.config
    decode = decoder(job.inputs["data"], device)
    examples = Examples.of(images, flips=job.inputs["data"].config["flips"])
    flow = networks.build(networks.teacher_architecture(config, images), derive(job.seed, "teacher", "weights"))

    def batch(step: int) -> NoisyImages:
        rows = examples.rows(derive(job.seed, "teacher"), step, config.training.batch)
        draws = generator(job.seed, "teacher", step)
        labels = drop_labels(examples.classes(rows), config.label_drop, draws)
        x = examples.pixels(rows)
        eta = None
        if config.noise_levels is not None:
            low, high = config.noise_levels
            eta = low + (high - low) * torch.rand(len(x), generator=draws)
        std = config.noise_std if eta is None else eta[:, None, None, None]
        return NoisyImages(x + std * torch.randn(x.shape, generator=draws), labels, eta)

    unseen = Examples.of(images, "test")
    quality = config.quality

    def score(network: nn.Module) -> dict[str, float]:
        return {"held_out_bits": bits_of(cast(TarFlow, network), unseen, job, device)}

    watch = Watch(quality.points, score) if quality else None
    levels = config.noise_levels
    loss = nats_per_dimension if levels is None else partial(nats_per_dimension, mean_level=sum(levels) / 2)
    fitted = fit(job, flow, batch, loss, config.training, device, watch=watch)
    best = quality and quality.use == "best" and fitted.best
    flow = cast(TarFlow, fitted.best_network() if best else fitted.network)
    bits = [bits_of(flow, part, job, device) for part in (unseen, Examples.of(images, "train"))]
    if not ranks.first():
        return None
    networks.save_network(flow, job.out, fitted.averages)
    schedules = _schedules(flow, config, job.seed, device)
    _draw(job, flow, images, schedules, decode, device)
    domain = "latents, differential" if images.levels is None else "images"
    return TeacherResult(
        images_seen=config.training.images,
        steps=config.training.steps,
        loss=fitted.loss,
        parameters=fitted.parameters,
        dequantisation=f"gaussian, std {config.noise_std} (density of noisy {domain})",
        bits_per_dim=bits[0],
        bits_per_dim_train=bits[1],
        schedule=[schedule.to_dict() for schedule in schedules],
        quality=fitted.quality(HELD_OUT_BITS, HELD_OUT_BITS),
    )


@torch.no_grad()
def bits_of(flow: TarFlow, examples: Examples, job: Job[Teacher], device: torch.device) -> float:
    """Mean bits per dimension over all rows, one draw of the training noise each."""
    total = torch.zeros((), dtype=torch.float64)
    for rows in ranks.mine(torch.arange(len(examples)).split(job.compute.inference_batch)):
        x, labels = examples.pixels(rows), examples.classes(rows)
        eps = noise(derive(job.seed, "teacher", "held-out"), rows, torch.zeros_like(rows), examples.shape)
        y = x + job.config.noise_std * eps
        with job.timings.measure("likelihood", len(rows) * ranks.world()):
            with full_precision(flow):
                nats = flow.log_prob(y.to(device), None if labels is None else labels.to(device))
            # Latents have no grey levels: their entropy is differential.
            width = 1.0 if examples.levels is None else bin_width(examples.levels)
            total += bits_per_dimension(nats, flow.config.dims, width).double().sum().cpu()
    return ranks.total([float(total)])[0] / len(examples)


def _schedules(flow: TarFlow, config: Teacher, seed: int, device: torch.device) -> tuple[Schedule, ...]:
    """A decoding schedule for each block, chosen on a small batch of this teacher's own samples."""
    if config.decoding == "sequential":
        return (Sequential(),) * config.blocks
    rows = torch.arange(CALIBRATION_IMAGES)
    z = starting_noise(derive(seed, "teacher", "calibration"), rows, flow.config.shape, device)
    return calibrate(
        flow,
        config.temperature * z,
        class_labels(rows, flow.config.classes, device),
        guidance=guidance_of(config),
        attention_temperature=config.attention_temperature,
        call_cost=CALIBRATION_CALL,
    )


def _draw(
    job: Job[Teacher],
    flow: TarFlow,
    images: ImageSet,
    schedules: tuple[Schedule, ...],
    decode: Callable[[Tensor], Tensor],
    device: torch.device,
) -> None:
    """A picture of samples next to images of the same classes."""
    config = job.config
    rows = torch.arange(config.preview_samples)
    labels = class_labels(rows, flow.config.classes, device)
    samples = teacher_samples(flow, rows, labels, derive(job.seed, "teacher", "samples"), config, schedules, device)
    originals = images.originals
    train = Examples(originals.train.images, originals.train.labels, originals.levels)
    real = train.pixels(rows_like(train, rows, labels))
    labelled_rows([("data", real), ("teacher", decode(samples).cpu())]).save(job.out / "samples.png")
