"""A round of reflow: the student before it, trained over all t on its own pairs, from its weights."""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.couplings import Banked
from pipeline.data.examples import Examples
from pipeline.engine.dag import last_student, of_kind
from pipeline.flow_matching.losses import loss_of_config
from pipeline.flow_matching.objective import FlowMatching
from pipeline.flow_matching.paths import LINEAR, velocity_of
from pipeline.flow_matching.solvers import Guided
from pipeline.flow_matching.times import times_of_config
from pipeline.metrics.straightness import straightness
from pipeline.outputs import networks
from pipeline.outputs.banks import BANK, FORWARD, PROBED, StoredPairs, open_arrays
from pipeline.outputs.images import images_of
from pipeline.outputs.results import ReflowResult
from pipeline.recipe.sections import Reflow
from pipeline.runtime import ranks
from pipeline.runtime.device import prepare
from pipeline.runtime.job import Job
from pipeline.runtime.seeds import derive
from pipeline.stages._pairs import bank_of, generated
from pipeline.training.flow_batches import FlowBatches
from pipeline.training.mixture import Mixture
from pipeline.training.student import finish, train
from storage.artifact import Artifact
from storage.bank import Bank

log = logging.getLogger(__name__)


def run(job: Job[Reflow]) -> ReflowResult | None:
    """Train a student on (z, ODE(z)), so that its paths become straighter.

    Inputs: the student before, its `pairs-N`; with `mix.forward`, `data` and the teacher's `bank` (or the second bank
    of `pairs-N`) for pairs that begin with a training image.

        (x, z) ~ pairs,  t ~ time,  x_t = (1 - t) x + t z        minimise loss(g(x_t, t, c), z - x)

    Rectified flow, Liu et al. 2023 (arXiv 2209.03003, eq. 1 on the pairs of the flow itself): lines between the ends of
    paths that do not cross cross less. Forward pairs: Kim et al. 2024 (arXiv 2410.07815).

    Leaves: the network with its averages, history.jsonl. The result has the straightness before and after, on the same
    noises, and a warning if the paths are less straight than before.
    """
    device = prepare(job.compute)
    config = job.config
    (name,) = of_kind(job.inputs, "pairs")
    source = job.inputs[name]
    network = networks.load_network(job.inputs[last_student(job.inputs)]).requires_grad_(True)
    bank = bank_of(source)
    forward = [_forward_bank(job, source)] if config.mix.forward else []
    pairs, *others = open_arrays([bank, *forward], job.compute)
    place = ranks.rank(), ranks.world()
    mixture = Mixture(
        generated(source, pairs), _forward(job, others[0]) if others else None, config.mix.forward, *place
    )
    batches = FlowBatches(
        mixture,
        mixture,
        times_of_config(config.time),
        LINEAR,
        0.0,
        derive(job.seed, job.stage),
        config.training.batch,
        rank=place[0],
        world=place[1],
    )
    objective = FlowMatching(LINEAR, loss_of_config(config.loss, device))
    fitted = train(job, network, batches, config.training, device, objective=objective)
    result = finish(job, fitted, "reflow")
    if result is None:
        return None
    probe = bank.rows(np.arange(min(PROBED, bank.facts.pairs)))
    labels = torch.from_numpy(probe["labels"]) if "labels" in probe else None
    before = source.metrics["straightness"]
    after = measured(fitted.network, torch.from_numpy(probe["z"]).float(), labels, device)
    return ReflowResult(
        **result.model_dump(),
        straightness=after,
        straightness_before=before,
        warnings=worsened(job.stage, before, after),
    )


def _forward_bank(job: Job, source: Artifact) -> Bank:
    """The teacher's noises of training images, or those at the other end of the student's ODE."""
    return Bank.open(job.inputs["bank"].path(BANK) if "bank" in job.inputs else source.path(FORWARD))


def _forward(job: Job, pairs: StoredPairs) -> tuple[Examples, Banked]:
    """Training images with the noises of their bank."""
    examples = Examples.of(images_of(job), flips=job.inputs["data"].config["flips"])
    return examples, Banked(pairs.z, ranks.rank(), ranks.world())


def measured(network: nn.Module, z: Tensor, labels: Tensor | None, device: torch.device) -> float:
    """Straightness of the paths from z (B, C, H, W), as the stage pairs measures that of the student before."""
    labels = None if labels is None else labels.to(device)
    return straightness(Guided(velocity_of(network, LINEAR), labels), z.to(device))


def worsened(stage: str, before: float, after: float) -> tuple[str, ...]:
    """A warning if the paths are less straight after the round; it is logged too."""
    if after <= before:
        return ()
    warning = (
        f"the paths are less straight after {stage}: straightness {before:.4g} became {after:.4g} (0 is "
        "straight). Train it for longer, on more pairs, or leave it out"
    )
    log.warning("%s", warning)
    return (warning,)
