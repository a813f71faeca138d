"""The one-step student: trained on the pairs of the last student, from its weights, for one or few Euler steps."""

from __future__ import annotations

import torch

from pipeline.couplings import Banked
from pipeline.data.examples import Examples
from pipeline.engine.dag import student_among
from pipeline.flow_matching.losses import loss_of_config
from pipeline.flow_matching.objective import FlowMatching, Objective, objective_of_config
from pipeline.flow_matching.paths import LINEAR
from pipeline.flow_matching.times import At, times_of_config
from pipeline.outputs import networks
from pipeline.outputs.banks import PAIRS
from pipeline.outputs.results import StudentResult
from pipeline.recipe.sections import OneStep
from pipeline.runtime.device import prepare
from pipeline.runtime.job import Job
from pipeline.training.flow_batches import FlowBatches, Intervals
from pipeline.training.segments import Segments
from pipeline.training.slow_embedding import with_slow_embedding
from pipeline.training.student import finish, train
from storage.bank import Bank


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
    network = networks.load_network(job.inputs[student_among(job.inputs)]).requires_grad_(True)
    objective: Objective = FlowMatching(LINEAR, loss_of_config(config.loss, device))
    if config.mode == "meanflow":
        network = with_slow_embedding(network, config.objective.time_scale, config.seed)
        objective = objective_of_config(config.objective, LINEAR)
    fitted = train(job, network, _batches(job), config.training, device, objective=objective)
    return finish(job, fitted, config.mode)


def _batches(job: Job[OneStep]) -> FlowBatches | Segments:
    config = job.config
    pairs = Bank.open(job.inputs["pairs"].path(PAIRS)).load()
    z, x, labels = pairs["z"], pairs["x"][0], pairs["labels"][0] if "labels" in pairs else None
    if config.steps > 1:
        return Segments(z[0], x, labels, config.steps, config.seed, config.training.batch)
    time = At(1.0) if config.mode == "distil" else times_of_config(config.time)
    return FlowBatches(
        Examples(x, labels),
        Banked(torch.from_numpy(z)),
        time,
        LINEAR,
        0.0,
        config.seed,
        config.training.batch,
        interval=Intervals.of_config(config.objective) if config.mode == "meanflow" else None,
    )
