"""A round of reflow: the student before it, trained further on its own pairs over all t, from its weights (rectified
flow, Liu et al. 2023, arXiv 2209.03003).

Lines between the ends of paths that do not cross cross less, so that a round makes paths straighter. How straight they
were and are is part of the result, on the same noises; a round that made them worse is said to have.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from pipeline.couplings import Banked
from pipeline.data.examples import Examples
from pipeline.engine.dag import of_kind, student_among
from pipeline.flow_matching.losses import loss_of_config
from pipeline.flow_matching.paths import LINEAR, velocity_of
from pipeline.flow_matching.solvers import guided
from pipeline.flow_matching.times import times_of_config
from pipeline.metrics.straightness import straightness
from pipeline.outputs import networks
from pipeline.outputs.banks import BANK, FORWARD, PAIRS, PROBED
from pipeline.outputs.images import images_of
from pipeline.outputs.results import ReflowResult
from pipeline.recipe.sections import Reflow
from pipeline.runtime.device import prepare
from pipeline.runtime.job import Job
from pipeline.runtime.seeds import derive
from pipeline.training.flow_batches import FlowBatches
from pipeline.training.mixture import Mixture
from pipeline.training.student import finish, train
from storage.artifact import Artifact
from storage.bank import Bank

log = logging.getLogger(__name__)


def run(job: Job) -> ReflowResult | None:
    device = prepare(job.compute)
    config: Reflow = job.config
    (name,) = of_kind(job.inputs, "pairs")
    made = job.inputs[name]
    network = networks.load_network(job.inputs[student_among(job.inputs)]).requires_grad_(True)
    pairs = Bank.open(made.path(PAIRS)).load()
    labels = pairs["labels"][0] if "labels" in pairs else None
    generated = Examples(pairs["x"][0], labels), Banked(torch.from_numpy(pairs["z"]))
    mixture = Mixture(generated, _forward(job, made) if config.mix.forward else None, config.mix.forward)
    couples = FlowBatches(
        mixture,
        mixture,
        times_of_config(config.time),
        LINEAR,
        0.0,
        derive(config.seed, job.stage),
        config.training.batch,
    )
    fitted = train(job, network, couples, config.training, device, loss=loss_of_config(config.loss, device))
    result = finish(job, fitted, "reflow")
    if result is None:
        return None

    probe = (
        torch.from_numpy(pairs["z"][0][:PROBED]).float(),
        None if labels is None else torch.from_numpy(labels[:PROBED]),
    )
    before, after = made.metrics["straightness"], measured(fitted.network, *probe, device)
    warnings = worsened(job.stage, before, after)
    return ReflowResult(**result.model_dump(), straightness=after, straightness_before=before, warnings=warnings)


def _forward(job: Job, made: Artifact) -> tuple[Examples, Banked]:
    """Training images with the teacher's noises, or with those that the student's own ODE carries them to."""
    images = images_of(job)
    examples = Examples.of(images, flips=job.inputs["data"].config["flips"])
    bank = job.inputs["bank"].path(BANK) if "bank" in job.inputs else made.path(FORWARD)
    return examples, Banked(torch.from_numpy(Bank.open(bank).load()["z"]))


def measured(network: nn.Module, z: Tensor, labels: Tensor | None, device: torch.device) -> float:
    """Straightness of the paths from z (B, C, H, W), as the pairs measure that of the student before."""
    chosen = None if labels is None else labels.to(device)
    return straightness(guided(velocity_of(network, LINEAR), chosen), z.to(device))


def worsened(stage: str, before: float, after: float) -> tuple[str, ...]:
    """A warning if the round made the paths less straight; it is logged too."""
    if after <= before:
        return ()
    warning = (
        f"{stage} made the paths less straight: straightness {before:.4g} became {after:.4g} (0 is "
        "straight). Train it for longer, on more pairs, or leave it out"
    )
    log.warning("%s", warning)
    return (warning,)
