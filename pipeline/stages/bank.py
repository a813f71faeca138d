"""The bank: the teacher's noises of every training image."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from models.tarflow import TarFlow
from pipeline.couplings import Standard
from pipeline.data.examples import Examples, drawn
from pipeline.metrics import gaussianity
from pipeline.metrics.probe import probes
from pipeline.outputs import networks
from pipeline.outputs.banks import BANK, ENCODE_BATCH, encoder, sigma_draws
from pipeline.outputs.fill import fill
from pipeline.outputs.images import images_of
from pipeline.outputs.results import BankResult
from pipeline.outputs.whitening import fit_whitening, too_few
from pipeline.recipe.sections import NoiseBank
from pipeline.reporting.pictures import z_diagnostics
from pipeline.reporting.text.noise import verdict
from pipeline.runtime import ranks
from pipeline.runtime.device import prepare
from pipeline.runtime.job import Job
from pipeline.runtime.seeds import derive
from storage.atomic import write_json
from storage.bank import Bank, BankFacts, BankWriter, facts_of
from storage.imageset import ImageSet
from storage.required import required

DIAGNOSED_VALUES = 2**26  # numbers of noise in the tests: some 3 GB in float64, with intermediate results


def run(job: Job[NoiseBank]) -> BankResult | None:
    """Encode every training image K times, with fresh eps ~ N(0, I) each time.

    Inputs: `data` (training images, mirrored copies too where the data have them), `teacher` (the flow f and its eta).

        z = f(x + eta eps, c) / sigma_f        sigma_f^2 = E[f(x + eta eps, c)^2], one scalar over the training set

    The coupling of Normalized Flow Matching (Berthelot et al. 2026, arXiv 2603.09014). With `whiten`, W_c (z - m_c) in
    place of z: a last layer of the flow, which gives each class c a mean of 0 and a covariance of I.

    Leaves: bank.zarr (K draws x rows), whitening (m_c and W_c), gaussianity.json and noise.png: tests of z against
    N(0, I) on training and held-out images, before any student is trained. The result has them and their warnings.
    """
    device = prepare(job.compute)
    config = job.config
    images = images_of(job)
    teacher = job.inputs["teacher"]
    flow = networks.load_flow(teacher, device)
    eta = teacher.config["noise_std"]
    examples = Examples.of(images, flips=job.inputs["data"].config["flips"])
    seed = derive(job.seed, "couplings")
    encoding = partial(encoder, flow, examples, eta, seed, device)

    # Measured once: another device would round it differently, and the shards on disk would not match.
    sigma = (
        required(started.sigma_f, "sigma_f")
        if (started := facts_of(job.out / BANK))
        else measure_sigma(encoding(), len(examples), config.draws_per_image, math.prod(examples.shape), job)
    )
    standard = Standard(sigma)
    if config.whiten:
        whitening = fit_whitening(job, examples, config.draws_per_image, encoding(standard), device)
        standard = Standard(sigma, whitening)
    facts = BankFacts(
        kind="encoded",
        rows=len(examples),
        draws=config.draws_per_image,
        shape=examples.shape,
        dtype=config.dtype,
        mantissa_bits=config.mantissa_bits,
        shard=config.shard,
        seed=seed,
        noise_std=eta,
        sigma_f=sigma,
        whitened=config.whiten,
        producer=teacher.fingerprint,
        flips=examples.flips,
    )
    writer = BankWriter(job.out / BANK, facts)
    encode = encoding(standard)
    fill(job, writer, lambda indices: {"z": encode(indices)})
    if not ranks.first():
        return None
    return _diagnose(job, flow, images, examples, eta, standard, device)


def measure_sigma(encode: Callable[[Tensor], Tensor], rows: int, draws: int, dims: int, job: Job) -> float:
    """sigma_f over every training image and `sigma_draws` of the draws; sums in float64."""
    used = sigma_draws(draws, rows, dims)
    chunks = list(enumerate(torch.arange(rows * used).split(16 * ENCODE_BATCH)))
    sums = []
    for number, indices in ranks.mine(chunks):
        with job.timings.measure("sigma", len(indices) * ranks.world()):
            sums.append((number, encode(indices).double().square().sum().item()))
        job.progress(int(indices[-1]) + 1, rows * used, "images measured")
        job.pause_point()
    # Added up in one order, for any number of ranks.
    total = sum(value for _, value in sorted(pair for part in ranks.gathered(sums) for pair in part))
    return math.sqrt(total / (rows * used * dims))


def _diagnose(
    job: Job[NoiseBank],
    flow: TarFlow,
    images: ImageSet,
    examples: Examples,
    eta: float,
    standard: Standard,
    device: torch.device,
) -> BankResult:
    """Test z against N(0, I) on training and on held-out images."""
    config = job.config
    most = max(2, DIAGNOSED_VALUES // math.prod(examples.shape))
    # Of the first draw, whose flat indices are the rows; in their order, as chunks are read whole.
    rows = drawn(most, len(examples)).sort().values
    train = torch.from_numpy(Bank.open(job.out / BANK).rows(rows.numpy())["z"]).float()
    test = Examples.of(images, "test")
    encode = encoder(flow, test, eta, derive(job.seed, "held-out"), device, standard)
    held_out = encode(drawn(most, len(test)).sort().values)
    diagnostics = gaussianity.diagnose(train, held_out, examples.pixels(rows))
    diagnostics |= probes(train, examples.classes(rows), derive(job.seed, "probes") % 2**32)
    z_diagnostics(train, held_out).save(job.out / "noise.png")
    write_json(job.out / "gaussianity.json", diagnostics)
    return BankResult(
        rows=len(examples),
        draws=config.draws_per_image,
        sigma_f=standard.sigma,
        whitened=config.whiten,
        noise=eta,
        gaussianity=diagnostics,
        warnings=(*verdict(diagnostics), *(too_few(examples, config.draws_per_image) if config.whiten else ())),
    )
