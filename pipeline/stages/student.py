"""The student: a velocity network trained on the pairs of the recipe's coupling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from PIL.Image import Image
from torch import nn

from pipeline.couplings import Independent, MinibatchOT, Source
from pipeline.data.conditions import TargetImages, condition_of
from pipeline.data.examples import Examples
from pipeline.evaluation.training_scores import SampleScores
from pipeline.flow_matching.objective import objective_of_config
from pipeline.flow_matching.paths import GaussianPath, path_of_config
from pipeline.flow_matching.sampling import conditioning_for, start_of, student_samples
from pipeline.flow_matching.times import times_of_config
from pipeline.outputs import networks
from pipeline.outputs.images import decoder, images_of, source_examples
from pipeline.outputs.results import StudentResult
from pipeline.recipe.sections import Student, Sweep
from pipeline.reporting.pictures import grid
from pipeline.runtime import ranks
from pipeline.runtime.device import prepare
from pipeline.runtime.job import Job
from pipeline.runtime.seeds import derive
from pipeline.stages._coupling import coupling_of_config, truncated
from pipeline.training import Watch
from pipeline.training.coupling_diagnostics import diagnose
from pipeline.training.flow_batches import FlowBatches, Intervals
from pipeline.training.student import finish, train
from pipeline.training.truncated import truncation
from storage.atomic import write_json
from storage.imageset import ImageSet
from storage.required import required

PREVIEW_SAMPLES, PREVIEW_COLUMNS = 20, 5  # in the picture of a checkpoint
PREVIEW = Sweep(solver="euler", nfe=(8,))  # its sampling
JUMPING = Sweep(solver="jump", nfe=(2,))  # that of average velocities


def run(job: Job[Student]) -> StudentResult | None:
    """Train a velocity network g from scratch.

    Inputs: `data`; by coupling `bank` (NFM, LOOM from the bank), `teacher` (NFM online), `potentials` (semidiscrete);
    `source` where a second image set takes the place of noise; `reference` for `quality`.

        (x, z) ~ coupling,  t ~ time,  x_t = a(t) x + s(t) z        minimise || g(x_t, t, c) - (a'(t) x + s'(t) z) ||^2

    With the objective meanflow it learns average velocities over [r, t] (see `pipeline.flow_matching.mean_flow`).

    Conditional flow matching, Lipman et al. 2023 (arXiv 2210.02747, eq. 9), on a Gaussian path (eq. 10-11); with the
    teacher's z on the straight path it is NFM (Berthelot et al. 2026, arXiv 2603.09014). See
    `pipeline.flow_matching.objective`. Labels are dropped with the probability `label_drop`, for guidance.

    Leaves: the network with its averages (with `quality` the best one too), history.jsonl, previews; for LOOM
    epochs.json or refinement.json. The result has figures of the coupling (`pipeline.training.coupling_diagnostics`).
    """
    device = prepare(job.compute)
    config = job.config
    data = job.inputs["data"]
    images = images_of(job)
    examples = Examples.of(images, flips=data.config["flips"])
    condition = None if config.condition is None else config.condition.model_dump()
    network = networks.build(networks.student_architecture(config, images), derive(job.seed, "student", "weights"))
    path = path_of_config(config.path)
    coupling = coupling_of_config(job, examples, device)
    if "source" in job.inputs:
        assert isinstance(coupling, Independent | MinibatchOT)  # the recipe's own check
        source = required(source_examples(job.inputs["source"], images, "train"), "the source's images")
        coupling = replace(coupling, draw=Source(source))
    truncated_pairs = truncated(coupling)
    batches = FlowBatches(
        examples if truncated_pairs is None else truncated_pairs,
        coupling,
        time=times_of_config(config.time),
        path=path,
        label_drop=config.label_drop,
        seed=job.seed,
        batch=config.training.batch,
        block=config.coupling.together,
        condition=condition_of(condition, images.levels),
        interval=Intervals.of_config(config.objective),
    )
    picture = preview(job, images, path, device)
    objective = objective_of_config(config.objective, path)
    scores = SampleScores.of(job, images, path, device) if config.quality else None
    watch = Watch(config.quality.points, scores) if config.quality and scores else None
    fitted = train(job, network, batches, config.training, device, picture, objective, watch)
    if ranks.first() and batches.epochs:
        write_json(job.out / "epochs.json", batches.epochs)
    result = finish(job, fitted, config.coupling.kind)
    if result is None:
        return None
    quality = scores.result(fitted) if scores else None
    result = result.model_copy(update={"quality": quality, **diagnose(batches, config.training.steps, device)})
    if truncated_pairs is None:
        return result
    labels = examples.classes(torch.arange(truncated_pairs.pairs) % len(examples))
    retained = truncated_pairs.retained.numpy()
    account = truncation(truncated_pairs.pairs, retained, None if labels is None else labels.numpy())
    return result.model_copy(update={"truncation": account})


def preview(
    job: Job[Student], images: ImageSet, path: GaussianPath, device: torch.device
) -> Callable[[nn.Module], Image]:
    """A function that draws samples of a network in training, always from the same noise or held-out images."""
    decode = decoder(job.inputs["data"], device)
    rows = torch.arange(PREVIEW_SAMPLES)
    section = job.config.condition
    held_out = TargetImages.of(images, None if section is None else section.model_dump())
    labels, condition = conditioning_for(rows, images, held_out, device)
    source = source_examples(job.inputs.get("source"), images, "test")
    z = start_of(derive(job.seed, "glance"), images.shape, source, device)(rows)

    how = JUMPING if job.config.objective.kind == "meanflow" else PREVIEW

    def picture(network: nn.Module) -> Image:
        samples, _ = student_samples(network, z, labels, how, how.nfe[0], path, condition)
        return grid(decode(samples), PREVIEW_COLUMNS)

    return picture
