"""The one-step student: trained on the pairs of the last student, from its weights, for one or few Euler steps."""

from __future__ import annotations

from pipeline.engine.dag import last_student
from pipeline.flow_matching.losses import loss_of_config
from pipeline.flow_matching.objective import FlowMatching, Objective, objective_of_config
from pipeline.flow_matching.paths import LINEAR
from pipeline.flow_matching.times import At, times_of_config
from pipeline.outputs import networks
from pipeline.outputs.banks import open_arrays
from pipeline.outputs.results import StudentResult
from pipeline.recipe.sections import OneStep
from pipeline.runtime import ranks
from pipeline.runtime.device import prepare
from pipeline.runtime.job import Job
from pipeline.stages._pairs import bank_of, generated, retained_of
from pipeline.training.flow_batches import FlowBatches, Intervals
from pipeline.training.segments import Segments
from pipeline.training.slow_embedding import with_slow_embedding
from pipeline.training.student import finish, train


def run(job: Job[OneStep]) -> StudentResult | None:
    """Distil a student, or reflow it once more.

    Inputs: the last student of the chain (its network), `pairs` (z, x = ODE(z)).

        distil, 1 step:    t = 1, x_1 = z             minimise loss(g(z, 1, c), z - x), so that x = z - g(z, 1, c)
        distil, k steps:   t = i/k, i = 1 ... k       minimise loss(g(x_t, t, c), k (x_{i/k} - x_{(i-1)/k}))
        reflow:            t ~ time                   minimise loss(g(x_t, t, c), z - x),  x_t = (1 - t) x + t z
        meanflow:          r <= t ~ time, objective   see `pipeline.flow_matching.mean_flow`, on the same x_t

    Rectified flow, Liu et al. 2023 (arXiv 2209.03003): reflow is its eq. 1 on its own pairs; distillation is the same
    objective at the times of the steps only. See `pipeline.training.segments` for k steps. MeanFlow on pairs of
    a trained student, from its weights, is Re-MeanFlow (arXiv 2511.23342); see `pipeline.training.slow_embedding`.

    Leaves: the network with its averages, history.jsonl.
    """
    device = prepare(job.compute)
    config = job.config
    network = networks.load_network(job.inputs[last_student(job.inputs)]).requires_grad_(True)
    objective: Objective = FlowMatching(LINEAR, loss_of_config(config.loss, device))
    if config.mode == "meanflow":
        network = with_slow_embedding(network, config.objective.time_scale, job.seed)
        objective = objective_of_config(config.objective, LINEAR)
    fitted = train(job, network, _batches(job), config.training, device, objective=objective)
    return finish(job, fitted, config.mode)


def _batches(job: Job[OneStep]) -> FlowBatches | Segments:
    config, artifact = job.config, job.inputs["pairs"]
    (pairs,) = open_arrays([bank_of(artifact)], job.compute)
    if config.steps > 1:
        assert pairs.x is not None  # the bank is of a stage pairs
        labels = None if pairs.labels is None else pairs.labels[0]
        return Segments(
            pairs.z[0],
            pairs.x[0],
            labels,
            config.steps,
            job.seed,
            config.training.batch,
            retained_of(artifact),
            ranks.rank(),
            ranks.world(),
        )
    examples, coupling = generated(artifact, pairs)
    return FlowBatches(
        examples,
        coupling,
        time=At(1.0) if config.mode == "distil" else times_of_config(config.time),
        path=LINEAR,
        label_drop=0.0,
        seed=job.seed,
        batch=config.training.batch,
        interval=Intervals.of_config(config.objective) if config.mode == "meanflow" else None,
        rank=ranks.rank(),
        world=ranks.world(),
    )
