"""The pairs that a trained flow itself induces: (z, ODE(z))."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.data.examples import Examples
from pipeline.data.labels import like_training
from pipeline.engine.dag import last_student
from pipeline.flow_matching.intervals import interval_ends
from pipeline.flow_matching.paths import LINEAR, velocity_of
from pipeline.flow_matching.sampling import TOLERANCE, Start, planned, start_of, student_velocity
from pipeline.flow_matching.solvers import Guided, integrate
from pipeline.flow_matching.times import time_grid
from pipeline.metrics.straightness import straightness
from pipeline.outputs import networks
from pipeline.outputs.banks import ENCODE_BATCH, FORWARD, PAIRS, PROBED
from pipeline.outputs.fill import fill
from pipeline.outputs.images import images_of, source_examples
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
    seed = derive(job.seed, job.stage)  # rounds differ in their noises
    paths = _Paths(
        networks.load_network(student, device),
        start_of(seed, images.shape, source_examples(job.inputs.get("source"), images, "train"), device),
        like_training(images, config.count, seed),
        config,
        device,
    )
    facts = BankFacts(
        kind="generated",
        rows=config.count * config.intervals,
        draws=1,
        shape=images.shape,
        dtype=config.dtype,
        shard=config.shard,
        seed=seed,
        producer=student.fingerprint,
        flips=False,
        solver=_solver_text(config) + (f", {config.intervals} intervals of each path" if config.intervals > 1 else ""),
    )
    arrays = ("z", "x") if paths.labels is None else ("z", "x", "labels")
    fill(job, BankWriter(job.out / PAIRS, facts, arrays=arrays), paths.pairs)
    if config.forward:
        _invert(job, paths, images, facts)
    left_out = _truncate(job, paths.labels) if config.drop_longest else None
    if not ranks.first():
        return None

    probe = torch.arange(min(PROBED, config.count))
    z, labels = paths.start(probe), paths.classes(probe)
    return PairsResult(
        count=config.count,
        nfe=config.nfe or paths.ends(z, labels)[1],
        solver=facts.solver,
        straightness=straightness(Guided(velocity_of(paths.network, LINEAR), labels), config.temperature * z),
        truncation=left_out,
    )


@dataclass(frozen=True)
class _Paths:
    """The student's `count` paths: number i leads from its start z, times the temperature, to its image x."""

    network: nn.Module
    start: Start
    labels: Tensor | None  # (count,)
    config: Pairs
    device: torch.device

    @property
    def how(self) -> Sweep:
        """The solver and its settings."""
        config = self.config
        return Sweep(
            solver=config.solver,
            grid=config.grid,
            nfe=() if config.nfe is None else (config.nfe,),
            guidance=config.guidance,
            temperature=config.temperature,
        )

    def classes(self, numbers: Tensor) -> Tensor | None:
        """Labels (n,) of these paths, on the device."""
        return None if self.labels is None else self.labels[numbers].to(self.device)

    def ends(self, z: Tensor, labels: Tensor | None) -> tuple[list[Tensor], float]:
        """z (n, C, H, W), then the states of its path at the ends of all intervals; and the network calls."""
        return interval_ends(self.network, z, labels, self.how, self.config.nfe or 0, self.config.intervals)

    def pairs(self, rows: Tensor) -> dict[str, Tensor]:
        """The bank's rows of these numbers (n,), rising by 1: z, x (n, C, H, W); labels (n,), if there are any."""
        intervals, stored = self.config.intervals, getattr(torch, self.config.dtype)
        parts = []
        numbers = torch.arange(int(rows[0]) // intervals, int(rows[-1]) // intervals + 1)
        for part in numbers.split(ENCODE_BATCH):
            states, _ = self.ends(self.start(part).to(stored).float(), self.classes(part))
            parts.append(torch.stack([state.cpu() for state in reversed(states)], 1))  # (n, intervals + 1, C, H, W)
        paths = torch.cat(parts)
        asked = rows - numbers[0] * intervals
        x, z = (part.flatten(0, 1)[asked] for part in (paths[:, :-1], paths[:, 1:]))
        return {"z": z, "x": x} | ({} if self.labels is None else {"labels": self.labels[rows // intervals]})


def _truncate(job: Job[Pairs], labels: Tensor | None) -> Truncation:
    """Write which pairs students train on, and count those left out; `labels` (count,) are those of the paths."""
    config = job.config
    retained = without_longest(job, Bank.open(job.out / PAIRS), config.drop_longest, intervals=config.intervals)
    kept = retained[:: config.intervals] // config.intervals
    return truncation(config.count, kept, None if labels is None else labels.numpy())


def _solver_text(config: Pairs) -> str:
    calls = f"tolerance {TOLERANCE}" if config.nfe is None else f"{config.nfe} calls"
    text = f"{config.solver}, {config.grid} grid, {calls}, guidance {config.guidance}"
    return text if config.temperature == 1 else f"{text}, temperature {config.temperature}"


def _invert(job: Job[Pairs], paths: _Paths, images: ImageSet, facts: BankFacts) -> None:
    """A bank of the noise of each training image, mirror images too where the student was trained on them: the ODE from
    t = 0 to 1, by the same solver on the same grid, divided by the temperature."""
    config = job.config
    examples = Examples.of(images, flips=job.inputs["data"].config["flips"])
    solver, steps = planned(paths.how, config.nfe or 0)
    grid = time_grid(config.grid, steps).flip(0)

    def encode(rows: Tensor) -> dict[str, Tensor]:
        parts = []
        for part in rows.split(ENCODE_BATCH):
            labels = examples.classes(part)
            labels = None if labels is None else labels.to(paths.device)
            velocity = student_velocity(paths.network, LINEAR, labels, config.guidance)
            end = integrate(velocity, examples.pixels(part).to(paths.device), grid, solver)
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
