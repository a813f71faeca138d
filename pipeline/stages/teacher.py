"""The teacher: a TarFlow fitted by maximum likelihood on noisy images (Zhai et al. 2024, arXiv 2412.06329).

    y = x + eta eps        maximise log p(y | c) = log N(f(y, c); 0, I) + log |det df/dy|
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.tarflow import Schedule, Sequential, TarFlow, bits_per_dimension, calibrate, full_precision
from pipeline import networks
from pipeline.batches import NoisyImages
from pipeline.configs import Teacher
from pipeline.examples import Examples, drop_labels
from pipeline.job import Job
from pipeline.noise import noise, uniform
from pipeline.pictures import labelled_rows
from pipeline.results import TeacherResult
from pipeline.runtime import derive, generator, prepare
from pipeline.sampling import class_labels, guidance_of, starting_noise, teacher_samples
from pipeline.stages.data import IMAGES
from pipeline.training import fit
from storage.imageset import ImageSet

CALIBRATED_ON = 32  # images
CALIBRATION_CALL = 256.0  # fixed cost of a network call in tokens: a choice of schedule that no clock can sway


def run(job: Job) -> TeacherResult:
    device = prepare(job.compute)
    images = ImageSet.open(job.inputs["data"].path(IMAGES))
    config: Teacher = job.config
    examples = Examples(images.train.images, images.train.labels, images.levels, _flips(job))
    flow = networks.build(networks.teacher_shape(config, images), derive(config.seed, "teacher", "weights"))
    dims = flow.config.dims

    def batch(step: int) -> NoisyImages:
        rows = examples.rows(derive(config.seed, "teacher"), step, config.training.batch)
        draws = generator(config.seed, "teacher", step)
        labels = drop_labels(examples.classes(rows), config.label_drop, draws)
        return NoisyImages(blur(examples.pixels(rows), config, images.levels, draws), labels)

    def nats_per_dimension(network: nn.Module, part: NoisyImages) -> Tensor:
        z, logdet = network(part.y, part.labels)
        return 0.5 * z.square().mean() - logdet.mean() / dims

    fitted = fit(job, flow, batch, nats_per_dimension, config.training, device)
    flow = fitted.network
    networks.save_network(flow, job.out)
    schedules = _schedules(flow, config, device)
    _draw(job, flow, images, schedules, device)
    gaussian = f"gaussian, std {config.noise} (density of noisy images)"
    return TeacherResult(
        images_seen=config.training.images, steps=config.training.steps, loss=fitted.loss,
        parameters=fitted.parameters,
        dequantisation="uniform" if config.dequantisation == "uniform" else gaussian,
        bits_per_dim=held_out_bits(flow, Examples(images.test.images, images.test.labels, images.levels), job, device),
        bits_per_dim_train=held_out_bits(flow, Examples(images.train.images, images.train.labels, images.levels), job,
                                         device),
        schedule=[schedule.to_dict() for schedule in schedules])


def _flips(job: Job) -> bool:
    return bool(job.inputs["data"].config["flips"])


def blur(x: Tensor, config: Teacher, levels: int, source: torch.Generator) -> Tensor:
    """x with the teacher's noise: eta eps, or uniform over its grey level's bin."""
    if config.dequantisation == "uniform":
        return x + (torch.rand(x.shape, generator=source) - 0.5) * bin_width(levels)
    return x + config.noise * torch.randn(x.shape, generator=source)


def bin_width(levels: int) -> float:
    """Distance of neighbouring grey levels on [-1, 1]."""
    return 2 / (levels - 1)


@torch.no_grad()
def held_out_bits(flow: TarFlow, examples: Examples, job: Job, device: torch.device) -> float:
    """Mean bits per dimension over all rows, one draw of the training noise each."""
    config: Teacher = job.config
    total = torch.zeros((), dtype=torch.float64)
    for rows in torch.arange(len(examples)).split(job.compute.batch):
        x, labels = examples.pixels(rows), examples.classes(rows)
        seed, draws = derive(config.seed, "teacher", "held-out"), torch.zeros_like(rows)
        if config.dequantisation == "uniform":
            y = x + (uniform(seed, rows, draws, examples.shape) - 0.5) * bin_width(examples.levels)
        else:
            y = x + config.noise * noise(seed, rows, draws, examples.shape)
        with full_precision(flow):
            nats = flow.log_prob(y.to(device), None if labels is None else labels.to(device))
        total += bits_per_dimension(nats, flow.config.dims, bin_width(examples.levels)).double().sum().cpu()
    return float(total / len(examples))


def _schedules(flow: TarFlow, config: Teacher, device: torch.device) -> tuple[Schedule, ...]:
    """A decoding schedule for each block, chosen on a small batch of this teacher's own samples."""
    if config.decoding == "sequential":
        return (Sequential(),) * config.blocks
    rows = torch.arange(CALIBRATED_ON)
    shape = (flow.config.channels, flow.config.size, flow.config.size)
    z = starting_noise(derive(config.seed, "teacher", "calibration"), rows, shape, device)
    return calibrate(flow, config.temperature * z, class_labels(rows, flow.config.classes, device),
                     guidance=guidance_of(config), attention_temperature=config.attention_temperature,
                     call_cost=CALIBRATION_CALL)


def _draw(job: Job, flow: TarFlow, images: ImageSet, schedules: tuple[Schedule, ...],
          device: torch.device) -> None:
    """Samples beside data of the same classes."""
    config: Teacher = job.config
    rows = torch.arange(config.shown)
    labels = class_labels(rows, flow.config.classes, device)
    made = teacher_samples(flow, rows, labels, derive(config.seed, "teacher", "samples"), config, schedules,
                           device)
    real = Examples(images.train.images, images.train.labels, images.levels).pixels(rows)
    labelled_rows([("data", real), ("teacher", made.cpu())]).save(job.out / "samples.png")


