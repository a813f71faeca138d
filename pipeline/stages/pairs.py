"""The pairs that a trained flow itself induces: (z, ODE(z)) (rectified flow, Liu et al. 2023, arXiv 2209.03003).

z is noise, or the training images of the source in turn, where there is one. It is rounded to what the bank stores
before the ODE is solved, so that the bank's x is ODE of the bank's z, to the rounding of x.

For a student of k steps each path's points at even times are kept: row p k + i - 1 holds those at i/k, as z, and at
(i - 1)/k, as x. Where forward pairs are wanted and there is no teacher's bank, a second bank holds the noise that the
ODE carries each training image to.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from pipeline.data.examples import Examples
from pipeline.data.labels import like_training
from pipeline.engine.dag import student_among
from pipeline.flow_matching.paths import velocity_of
from pipeline.flow_matching.sampling import TOLERANCE, planned, start_of, student_samples, student_velocity
from pipeline.flow_matching.solvers import Solver, Velocity, guided, integrate
from pipeline.flow_matching.times import time_grid
from pipeline.metrics.straightness import straightness
from pipeline.outputs import networks
from pipeline.outputs.banks import ENCODE_BATCH, FORWARD, PAIRS, PROBED
from pipeline.outputs.fill import fill
from pipeline.outputs.images import images_of, source_examples
from pipeline.outputs.networks import path_of
from pipeline.outputs.results import PairsResult
from pipeline.recipe.sections import Pairs, Sweep
from pipeline.runtime import ranks
from pipeline.runtime.device import prepare
from pipeline.runtime.job import Job
from pipeline.runtime.seeds import derive
from storage.bank import BankFacts, BankWriter
from storage.imageset import ImageSet


def run(job: Job) -> PairsResult | None:
    device = prepare(job.compute)
    config: Pairs = job.config
    images = images_of(job)
    student = job.inputs[student_among(job.inputs)]
    network = networks.load_network(student, device)
    path = path_of(student)
    seed = derive(config.seed, job.stage)  # rounds differ in their noises
    start = start_of(seed, images.shape, source_examples(job.inputs.get("source"), images, "train"), device)
    labels = like_training(images, config.count, seed)
    how = Sweep(
        solver=config.solver,
        grid=config.grid,
        nfe=() if config.nfe is None else (config.nfe,),
        guidance=config.guidance,
    )
    intervals = getattr(config, "intervals", 1)
    facts = BankFacts(
        kind="generated",
        rows=config.count * intervals,
        draws=1,
        shape=images.shape,
        dtype=config.dtype,
        shard=config.shard,
        seed=seed,
        producer=student.fingerprint,
        flips=False,
        solver=_words(config) + (f", {intervals} intervals of each path" if intervals > 1 else ""),
    )
    stored = getattr(torch, config.dtype)

    def ends(z: Tensor, chosen: Tensor | None) -> list[Tensor]:
        """The path from z (n, C, H, W) at the ends of all intervals, from t = 1 to 0."""
        if intervals == 1:
            return [z, student_samples(network, z, chosen, how, config.nfe or 0, path)[0]]
        solver, steps = planned(how, config.nfe or 0)
        # Dopri5's one step holds any number of its own: it is stopped at each of the ends.
        return passed(
            student_velocity(network, path, chosen, config.guidance), z, solver, max(steps, intervals), intervals
        )

    def generate(rows: Tensor) -> dict[str, Tensor]:
        made = []
        paths = torch.arange(int(rows[0]) // intervals, int(rows[-1]) // intervals + 1)
        for part in paths.split(ENCODE_BATCH):
            z = start(part).to(stored).float()
            states = ends(z, None if labels is None else labels[part].to(device))
            made.append(torch.stack([state.cpu() for state in reversed(states)], 1))  # (n, intervals + 1, C, H, W)
        states = torch.cat(made)
        kept = rows - paths[0] * intervals
        x, z = (part.flatten(0, 1)[kept] for part in (states[:, :-1], states[:, 1:]))
        return {"z": z, "x": x} | ({} if labels is None else {"labels": labels[rows // intervals]})

    fill(
        job, BankWriter(job.out / PAIRS, facts, arrays=("z", "x") if labels is None else ("z", "x", "labels")), generate
    )
    if getattr(config, "forward", False):
        _invert(job, network, images, how, facts, device)
    if not ranks.first():
        return None

    probe = torch.arange(min(PROBED, config.count))
    chosen = None if labels is None else labels[probe].to(device)
    calls = config.nfe or student_samples(network, start(probe), chosen, how, 0, path)[1]
    z = path.start(start(probe))
    return PairsResult(
        count=config.count,
        nfe=calls,
        solver=facts.solver,
        straightness=straightness(guided(velocity_of(network, path), chosen), z),
    )


@torch.no_grad()
def passed(velocity: Velocity, z: Tensor, solver: Solver, steps: int, intervals: int) -> list[Tensor]:
    """States (B, ...) of the path from z at the even times 1, 1 - 1/k, ..., 0, with k = `intervals`.

    `solver` makes `steps` steps of equal length, a multiple of k; an adaptive one makes its own within each interval.
    """
    grid, each = time_grid("uniform", steps), steps // intervals
    states = [z]
    for first in range(0, steps, each):
        states.append(integrate(velocity, states[-1], grid[first : first + each + 1], solver))
    return states


def _words(config: Pairs) -> str:
    calls = f"tolerance {TOLERANCE}" if config.nfe is None else f"{config.nfe} calls"
    return f"{config.solver}, {config.grid} grid, {calls}, guidance {config.guidance}"


def _invert(job: Job, network: nn.Module, images: ImageSet, how: Sweep, facts: BankFacts, device: torch.device) -> None:
    """A bank of the noise of each training image, mirror images too where the student was trained on them: the ODE from
    t = 0 to 1, by the same solver on the same grid."""
    config: Pairs = job.config
    examples = Examples.of(images, flips=job.inputs["data"].config["flips"])
    solver, steps = planned(how, config.nfe or 0)
    grid = time_grid(how.grid, steps).flip(0)
    velocity = partial(student_velocity, network, path_of(job.inputs[student_among(job.inputs)]))

    def encode(rows: Tensor) -> dict[str, Tensor]:
        made = []
        for part in rows.split(ENCODE_BATCH):
            labels = examples.classes(part)
            follow = velocity(None if labels is None else labels.to(device), how.guidance)
            made.append(integrate(follow, examples.pixels(part).to(device), grid, solver).cpu())
        return {"z": torch.cat(made)}

    facts = facts.model_copy(
        update={
            "kind": "encoded",
            "rows": len(examples),
            "flips": examples.flips,
            "solver": f"{_words(config)}, from the images",
        }
    )
    fill(job, BankWriter(job.out / FORWARD, facts, arrays=("z",)), encode)
