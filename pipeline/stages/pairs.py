"""The pairs that a trained flow itself induces: (z, ODE(z))."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.data.examples import Examples
from pipeline.data.labels import like_training
from pipeline.engine.dag import last_student
from pipeline.flow_matching.paths import velocity_of
from pipeline.flow_matching.sampling import TOLERANCE, planned, start_of, student_samples, student_velocity
from pipeline.flow_matching.solvers import CountedField, Guided, Solver, Velocity, integrate
from pipeline.flow_matching.times import time_grid
from pipeline.metrics.straightness import straightness
from pipeline.outputs import networks
from pipeline.outputs.banks import ENCODE_BATCH, FORWARD, PAIRS, PROBED
from pipeline.outputs.fill import fill
from pipeline.outputs.images import images_of, source_examples
from pipeline.outputs.networks import path_of
from pipeline.outputs.results import PairsResult, Truncation
from pipeline.recipe.sections import Pairs, Sweep
from pipeline.runtime import ranks
from pipeline.runtime.device import prepare
from pipeline.runtime.job import Job
from pipeline.runtime.seeds import derive
from pipeline.training.truncated import truncation, without_longest
from storage.bank import Bank, BankFacts, BankWriter
from storage.imageset import ImageSet


def run(job: Job[Pairs]) -> PairsResult | None:
    """Solve the student's ODE from `count` noises, or from the training images of the source in turn.

    Inputs: the last student of the chain, `data` (shape and class proportions), `source` if there is one.

        x = T z - integral from 0 to 1 of v(x_t, t, c) dt,  x_1 = T z        T 1, v unguided unless the section says so

    Rectified flow, Liu et al. 2023 (arXiv 2209.03003, algorithm 1). z is rounded to the type of the bank before the ODE
    is solved, so that the stored x is ODE of the stored z, to the rounding of x. For a student of k steps the path's
    states at even times are stored: row p k + i - 1 has those at i/k, as z, and at (i - 1)/k, as x.

    Leaves: pairs.zarr (z, x, labels); with `drop_longest` retained.safetensors, the rows that students train on. Where
    forward pairs are asked for and there is no teacher's bank, forward.zarr: for each training image the noise at the
    other end of its ODE. The result has the straightness of the paths.
    """
    device = prepare(job.compute)
    config = job.config
    images = images_of(job)
    student = job.inputs[last_student(job.inputs)]
    network = networks.load_network(student, device)
    path = path_of(student)
    seed = derive(job.seed, job.stage)  # rounds differ in their noises
    start = start_of(seed, images.shape, source_examples(job.inputs.get("source"), images, "train"), device)
    labels = like_training(images, config.count, seed)
    how = Sweep(
        solver=config.solver,
        grid=config.grid,
        nfe=() if config.nfe is None else (config.nfe,),
        guidance=config.guidance,
        temperature=config.temperature,
    )
    intervals = config.intervals
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
        solver=_solver_text(config) + (f", {intervals} intervals of each path" if intervals > 1 else ""),
    )
    stored = getattr(torch, config.dtype)

    def ends(z: Tensor, chosen: Tensor | None) -> tuple[list[Tensor], float]:
        """z (n, C, H, W), then the states of the path from T z at the ends of all intervals, until t = 0; and
        the network calls."""
        if intervals == 1:
            x, calls = student_samples(network, z, chosen, how, config.nfe or 0, path)
            return [z, x], calls
        solver, steps = planned(how, config.nfe or 0)
        velocity = CountedField(student_velocity(network, path, chosen, config.guidance))
        # Dopri5's one step stands for any number: it ends at each end of an interval.
        states = passed(velocity, config.temperature * z, solver, max(steps, intervals), intervals)
        return [z, *states[1:]], velocity.calls

    def generate(rows: Tensor) -> dict[str, Tensor]:
        parts = []
        paths = torch.arange(int(rows[0]) // intervals, int(rows[-1]) // intervals + 1)
        for part in paths.split(ENCODE_BATCH):
            z = start(part).to(stored).float()
            states, _ = ends(z, None if labels is None else labels[part].to(device))
            parts.append(torch.stack([state.cpu() for state in reversed(states)], 1))  # (n, intervals + 1, C, H, W)
        all_states = torch.cat(parts)
        asked = rows - paths[0] * intervals
        x, z = (part.flatten(0, 1)[asked] for part in (all_states[:, :-1], all_states[:, 1:]))
        return {"z": z, "x": x} | ({} if labels is None else {"labels": labels[rows // intervals]})

    fill(
        job, BankWriter(job.out / PAIRS, facts, arrays=("z", "x") if labels is None else ("z", "x", "labels")), generate
    )
    if config.forward:
        _invert(job, network, images, how, facts, device)
    left_out = _truncate(job, None if labels is None else labels.numpy()) if config.drop_longest else None
    if not ranks.first():
        return None

    probe = torch.arange(min(PROBED, config.count))
    chosen = None if labels is None else labels[probe].to(device)
    calls = config.nfe or ends(start(probe), chosen)[1]
    z = path.start(config.temperature * start(probe))
    return PairsResult(
        count=config.count,
        nfe=calls,
        solver=facts.solver,
        straightness=straightness(Guided(velocity_of(network, path), chosen), z),
        truncation=left_out,
    )


def _truncate(job: Job[Pairs], labels: np.ndarray | None) -> Truncation:
    """Write which pairs students train on, and count those left out; `labels` (count,) are those of the paths."""
    config = job.config
    retained = without_longest(job, Bank.open(job.out / PAIRS), config.drop_longest, intervals=config.intervals)
    return truncation(config.count, retained[:: config.intervals] // config.intervals, labels)


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


def _solver_text(config: Pairs) -> str:
    calls = f"tolerance {TOLERANCE}" if config.nfe is None else f"{config.nfe} calls"
    text = f"{config.solver}, {config.grid} grid, {calls}, guidance {config.guidance}"
    return text if config.temperature == 1 else f"{text}, temperature {config.temperature}"


def _invert(
    job: Job[Pairs], network: nn.Module, images: ImageSet, how: Sweep, facts: BankFacts, device: torch.device
) -> None:
    """A bank of the noise of each training image, mirror images too where the student was trained on them: the ODE from
    t = 0 to 1, by the same solver on the same grid, divided by the temperature."""
    config = job.config
    examples = Examples.of(images, flips=job.inputs["data"].config["flips"])
    solver, steps = planned(how, config.nfe or 0)
    grid = time_grid(how.grid, steps).flip(0)
    velocity = partial(student_velocity, network, path_of(job.inputs[last_student(job.inputs)]))

    def encode(rows: Tensor) -> dict[str, Tensor]:
        parts = []
        for part in rows.split(ENCODE_BATCH):
            labels = examples.classes(part)
            follow = velocity(None if labels is None else labels.to(device), how.guidance)
            end = integrate(follow, examples.pixels(part).to(device), grid, solver)
            parts.append((end / config.temperature).cpu())
        return {"z": torch.cat(parts)}

    facts = facts.model_copy(
        update={
            "kind": "encoded",
            "rows": len(examples),
            "flips": examples.flips,
            "solver": f"{_solver_text(config)}, from the images",
        }
    )
    fill(job, BankWriter(job.out / FORWARD, facts, arrays=("z",)), encode)
