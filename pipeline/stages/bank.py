"""The bank: every training image's noise by the teacher, in K draws (NFM, arXiv 2603.09014).

z = f(x + eta eps, c) / sigma_f        sigma_f^2 = E[f(x + eta eps, c)^2], one scalar over the training set
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from models.tarflow import TarFlow
from pipeline.data.examples import Examples, drawn
from pipeline.metrics import gaussianity
from pipeline.metrics.probe import probes
from pipeline.outputs import networks
from pipeline.outputs.banks import BANK, ENCODE_BATCH, encoder
from pipeline.outputs.fill import fill
from pipeline.outputs.images import images_of
from pipeline.outputs.results import BankResult
from pipeline.recipe.sections import NoiseBank
from pipeline.reporting.pictures import z_diagnostics
from pipeline.runtime import ranks
from pipeline.runtime.device import prepare
from pipeline.runtime.job import Job
from pipeline.runtime.seeds import derive
from storage.atomic import write_json
from storage.bank import Bank, BankFacts, BankWriter, facts_of
from storage.imageset import ImageSet

DIAGNOSED_VALUES = 2**26  # of noise: some 3 GB in float64 with all intermediate results
SIGMA_VALUES = 2**24  # at least, for sigma_f: its relative error is then below 2e-4


def run(job: Job) -> BankResult | None:
    device = prepare(job.compute)
    config: NoiseBank = job.config
    images = images_of(job)
    teacher = job.inputs["teacher"]
    flow = networks.load_network(teacher, device)
    eta = teacher.config["noise_std"]
    examples = Examples.of(images, flips=job.inputs["data"].config["flips"])
    encode = encoder(flow, examples, eta, derive(config.seed, "couplings"), device)

    # Measured once: another device would round it differently, and the bank could not be resumed.
    sigma = (
        begun.sigma_f
        if (begun := facts_of(job.out / BANK))
        else measure_sigma(encode, len(examples), config.draws_per_image, math.prod(examples.shape), job)
    )
    facts = BankFacts(
        kind="encoded",
        rows=len(examples),
        draws=config.draws_per_image,
        shape=examples.shape,
        dtype=config.dtype,
        mantissa_bits=config.mantissa_bits,
        shard=config.shard,
        seed=derive(config.seed, "couplings"),
        noise_std=eta,
        sigma_f=sigma,
        producer=teacher.fingerprint,
        flips=examples.flips,
    )
    writer = BankWriter(job.out / BANK, facts)
    fill(job, writer, lambda indices: {"z": encode(indices) / sigma})
    if not ranks.first():
        return None
    return _diagnose(job, flow, images, examples, eta, sigma, device)


def measure_sigma(encode: Callable[[Tensor], Tensor], rows: int, draws: int, dims: int, job: Job) -> float:
    """sigma_f over every training image and as many of the draws as give enough numbers; float64 sums."""
    used = min(draws, math.ceil(SIGMA_VALUES / (rows * dims)))
    chunks = list(enumerate(torch.arange(rows * used).split(16 * ENCODE_BATCH)))
    sums = []
    for number, indices in ranks.mine(chunks):
        sums.append((number, encode(indices).double().square().sum().item()))
        job.progress(int(indices[-1]) + 1, rows * used, "images measured")
        job.pause_point()
    # Added up in one order, however many ranks there are.
    total = sum(value for _, value in sorted(pair for part in ranks.gathered(sums) for pair in part))
    return math.sqrt(total / (rows * used * dims))


def _diagnose(
    job: Job, flow: TarFlow, images: ImageSet, examples: Examples, eta: float, sigma: float, device: torch.device
) -> BankResult:
    """How Gaussian z is, of training and of held-out images, before any student is trained."""
    config: NoiseBank = job.config
    most = max(2, DIAGNOSED_VALUES // math.prod(examples.shape))
    # Of the first draw, whose flat indices are the rows; in their order, as chunks are read whole.
    rows = drawn(most, len(examples)).sort().values
    train = torch.from_numpy(Bank.open(job.out / BANK).rows(rows.numpy())["z"]).float()
    unseen = Examples.of(images, "test")
    encode = encoder(flow, unseen, eta, derive(config.seed, "held-out"), device)
    held_out = encode(drawn(most, len(unseen)).sort().values) / sigma
    figures = gaussianity.diagnose(train, held_out, examples.pixels(rows)) | probes(
        train, examples.classes(rows), derive(config.seed, "probes") % 2**32
    )
    z_diagnostics(train, held_out).save(job.out / "noise.png")
    write_json(job.out / "gaussianity.json", figures)
    return BankResult(
        rows=len(examples),
        draws=config.draws_per_image,
        sigma_f=sigma,
        noise=eta,
        gaussianity=figures,
        warnings=tuple(gaussianity.verdict(figures)),
    )
