"""The pairs that a trained flow itself induces: (z, ODE(z)) (rectified flow, Liu et al. 2023, arXiv 2209.03003).

z is noise, or the training images of the source in turn, where there is one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline import networks, ranks
from pipeline.configs import Pairs, Sweep
from pipeline.job import Job
from pipeline.labels import like_training
from pipeline.metrics.straightness import straightness
from pipeline.paths import velocity_of
from pipeline.results import PairsResult
from pipeline.runtime import derive, prepare
from pipeline.sampling import path_of, start_of, student_samples
from pipeline.shards import fill
from pipeline.solvers import guided
from pipeline.stages.couplings import TOGETHER
from pipeline.stages.data import IMAGES
from storage.bank import BankFacts, BankWriter
from storage.imageset import ImageSet

PAIRS = "pairs.zarr"
PROBED = 512  # pairs at most whose paths' straightness is measured


def run(job: Job) -> PairsResult | None:
    device = prepare(job.compute)
    config: Pairs = job.config
    images = ImageSet.open(job.inputs["data"].path(IMAGES))
    student = job.inputs["student"]
    network = networks.load_network(student, device)
    path = path_of(student)
    seed = derive(config.seed, "pairs")
    start = start_of(seed, images, job.inputs.get("source"), "train", device)
    labels = like_training(images, config.count, seed)
    how = Sweep(solver=config.solver, grid=config.grid, nfe=(config.nfe,), guidance=config.guidance)
    facts = BankFacts(kind="generated", rows=config.count, draws=1, shape=images.shape, dtype=config.dtype,
                      shard=config.shard, seed=seed, producer=student.fingerprint, flips=False,
                      solver=f"{config.solver}, {config.grid} grid, {config.nfe} calls, guidance {config.guidance}")
    writer = BankWriter(job.out / PAIRS, facts, arrays=("z", "x") if labels is None else ("z", "x", "labels"))

    def generate(rows: Tensor) -> dict[str, Tensor]:
        made = []
        for part in rows.split(TOGETHER):
            z = start(part)
            chosen = None if labels is None else labels[part].to(device)
            made.append((z.cpu(), student_samples(network, z, chosen, how, config.nfe, path)[0].cpu()))
        z, x = (torch.cat(column) for column in zip(*made, strict=True))
        return {"z": z, "x": x} | ({} if labels is None else {"labels": labels[rows]})

    fill(job, writer, generate)
    if not ranks.first():
        return None

    probe = torch.arange(min(PROBED, config.count))
    chosen = None if labels is None else labels[probe].to(device)
    z = path.start(start(probe))
    return PairsResult(count=config.count, nfe=config.nfe, solver=facts.solver,
                       straightness=straightness(guided(velocity_of(network, path), chosen), z))
