"""The evaluation: Frechet distance against NFE, for teacher, student, rounds of reflow and one-step student.

Sample number i of every model starts from the same noise and class; generation and statistics are one pass. Each score
carries its protocol. A stopped evaluation resumes after its last score or figure.

A student with a condition samples the test images in turn, and its distance to them is measured too. One with a source
starts from the source's test images in turn.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from pipeline.data.conditions import TargetImages
from pipeline.data.labels import like_held_out, like_training
from pipeline.engine.dag import students_among
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.figures import Figures, stoppable
from pipeline.evaluation.gallery import ROW_IMAGES, Gallery, rows_in_turn
from pipeline.evaluation.memorisation import best_of, memorisation_of
from pipeline.evaluation.noise_cost import noise_cost_samplers
from pipeline.evaluation.protocol import different_samples, shared_protocol
from pipeline.evaluation.samplers import samplers
from pipeline.evaluation.scored import score_all
from pipeline.evaluation.student_likelihood import student_bits
from pipeline.flow_matching.sampling import Start, conditioning_for, start_of, student_velocity
from pipeline.metrics import MetricSuite, frechet_warnings
from pipeline.metrics.neighbours import STORED_SAMPLES
from pipeline.metrics.straightness import PATH_STEPS, PATHS, path_shape
from pipeline.outputs import networks
from pipeline.outputs.images import decoder, images_of, source_examples
from pipeline.outputs.networks import path_of
from pipeline.outputs.reference import load_extractor, load_features
from pipeline.outputs.results import EvaluationResult, LikelihoodResult, PathResult
from pipeline.recipe.sections import Evaluation
from pipeline.reporting.page.rounds import rounds
from pipeline.runtime import ranks
from pipeline.runtime.device import prepare
from pipeline.runtime.job import Job
from pipeline.runtime.seeds import derive
from storage.atomic import write_json
from storage.checksummed_json import json_digest
from storage.imageset import ImageSet
from storage.inspection import SCORES
from storage.required import required

PICTURES = ("samples", "trajectories", "interpolations", "neighbours")


def run(job: Job[Evaluation]) -> EvaluationResult | None:
    """Sample every network by every sampler of the recipe, and measure the samples.

    Inputs: `data`, `reference` (extractor, and the features of real images), every network, `bank` for `noise_cost`,
    and `source` where a second image set takes the place of noise.

    Leaves: scores.json, samples.png, trajectories.png, interpolations.png, neighbours.png. The result has the scores
    under one protocol, the yardsticks, how straight each student's paths are, memorisation, and warnings.
    """
    device = prepare(job.compute)
    config = job.config
    images = images_of(job)
    seed = derive(job.seed, "evaluation")
    start = start_of(seed, images.shape, source_examples(job.inputs.get("source"), images, "test"), device)
    targets = TargetImages.of(images, job.inputs["student"].config.get("condition"))
    labels = (
        like_training(images, config.samples, seed) if targets is None else targets.labels(torch.arange(config.samples))
    )
    evaluator = _evaluator(job, images, targets, labels, device)

    ways = [*samplers(job, start, targets, device)]
    entries = [(evaluator, way) for way in ways]
    both_starts = [*noise_cost_samplers(job, images, evaluator, ways, device)] if config.noise_cost else []
    everything = score_all(job, entries + both_starts)
    scored, of_noise = everything[: len(entries)], everything[len(entries) :]
    likelihood = _likelihood(job, images, device)
    if not ranks.first():
        return None

    students = students_among(job.inputs)
    best = best_of(scored)
    figures = Figures(job, len(PICTURES) + 1 + len(best) + len(students))
    rows = _rows_shown(targets, labels, config.samples)
    gallery = Gallery(
        images=images,
        start=start,
        targets=targets,
        source="source" in job.inputs,
        rows=rows,
        labels=None if labels is None else labels[rows].to(device),
        decode=evaluator.decode,
        pause=job.pause_point,
    )
    figures.picture("samples.png", partial(gallery.grid, scored))
    figures.picture("trajectories.png", partial(gallery.trajectories, ways))
    figures.picture("interpolations.png", partial(gallery.interpolations, ways))
    memorisation = memorisation_of(job, best, gallery, figures, device)
    paths = [
        PathResult(**figures.numbers(f"path-{role}", partial(_path, job, role, images, start, targets, device)))
        for role in students
    ]
    scores = [score for item in scored for score in item.scores]
    write_json(job.out / SCORES, [score.model_dump(mode="json") | {"digest": score.digest} for score in scores])
    fewest = min(different_samples(job, images), evaluator.real.count)
    warnings = frechet_warnings(fewest, evaluator.width, required(evaluator.held_out, "held-out images").count)
    if both_starts:
        few = frechet_warnings(both_starts[0][0].samples, evaluator.width)
        warnings += [f"Cost of the noise: {text}" for text in few]
    warnings += [round.verdict for round in rounds(students, scores, paths) if round.verdict]
    suite, yardstick = evaluator.suite, job.inputs["reference"].metrics
    return EvaluationResult(
        protocol=json_digest(evaluator.protocol)[:16],
        floor=yardstick["split_half"],
        scores=tuple(scores),
        curvature=paths[0].curvature,
        likelihood=likelihood,
        paths=tuple(paths),
        floors=suite.floors() if suite else {},
        held_out={yardstick["metric"]: yardstick["held_out"]} | (suite.held_out_distances() if suite else {}),
        memorisation=tuple(memorisation),
        noise_cost=tuple(score for item in of_noise for score in item.scores),
        warnings=tuple(warnings),
    )


def _evaluator(
    job: Job[Evaluation], images: ImageSet, targets: TargetImages | None, labels: Tensor | None, device: torch.device
) -> Evaluator:
    """The Frechet distance in the reference's features, and the metrics that the recipe names."""
    config, reference = job.config, job.inputs["reference"]
    extractor = load_extractor(reference, images.originals, device)
    real, held_out = (load_features(reference, split) for split in ("train", "test"))
    suite = None
    if config.metrics:
        suite = MetricSuite(
            names=config.metrics,
            metric=reference.metrics["metric"],
            real=real.rows,
            samples=config.samples,
            logits=getattr(extractor, "logits", None),
            seed=derive(job.seed, "metrics") % 2**32,
            device=device,
            held_out=held_out.rows,
        )
    return Evaluator(
        extractor=extractor,
        real=real.moments,
        samples=config.samples,
        labels=labels,
        levels=images.originals.grey_levels,
        batch=job.compute.inference_batch,
        device=device,
        protocol=shared_protocol(job, images, targets),
        decode=decoder(job.inputs["data"], device),
        targets=None if targets is None else targets.images,
        suite=suite,
        held_out=held_out.moments,
        like_held_out=like_held_out(images, labels, config.samples),
    )


def _rows_shown(targets: TargetImages | None, labels: Tensor | None, samples: int) -> Tensor:
    """The sample numbers of the pictures, of those that are stored: all classes in turn, as far as these have them, or
    the first test images that samples should equal."""
    count = min(ROW_IMAGES, samples)
    stored = None if labels is None else labels[:STORED_SAMPLES]
    return torch.arange(count) if targets is not None else rows_in_turn(stored, count)


def _path(
    job: Job[Evaluation], role: str, images: ImageSet, start: Start, targets: TargetImages | None, device: torch.device
) -> dict[str, Any]:
    """`PathResult`: how straight a model's paths are, with its first average and without guidance."""
    artifact = job.inputs[role]
    network, path = networks.load_network(artifact, device), path_of(artifact)
    rows = torch.arange(min(PATHS, job.config.samples))
    labels, condition = conditioning_for(rows, images, targets, device)
    velocity = stoppable(student_velocity(network, path, labels, condition=condition), job)
    shape = path_shape(velocity, path.start(start(rows)), PATH_STEPS)
    return {
        "model": role,
        "straightness": shape.straightness,
        "curvature": shape.curvature,
        "steps": PATH_STEPS,
        "paths": len(rows),
    }


def _likelihood(job: Job[Evaluation], images: ImageSet, device: torch.device) -> LikelihoodResult | None:
    if job.config.likelihood is None:
        return None
    network = networks.load_network(job.inputs["student"], device)
    return student_bits(network, images, job.config.likelihood, job, device)
