"""The evaluation: Frechet distance against network calls, for teacher, student, rounds of reflow and one-step student.

Every model's sample number i starts from the same noise and class; generation and statistics are one pass. Each score
carries the protocol that made it.

A student with a condition is asked for the test images in turn, and is also measured by how near it comes to them. One
with a source starts from the source's test images in turn.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.data.conditions import TargetImages
from pipeline.data.labels import like_training
from pipeline.engine.dag import students_among
from pipeline.evaluation.evaluator import Evaluator, SamplerUnderTest
from pipeline.evaluation.gallery import Gallery
from pipeline.evaluation.neighbours import COMPARED, TrainingSetNeighbours
from pipeline.evaluation.samplers import samplers
from pipeline.evaluation.student_likelihood import student_bits
from pipeline.flow_matching.sampling import Start, conditioning_for, start_of, student_velocity
from pipeline.metrics import MetricSuite, frechet_warnings
from pipeline.metrics.straightness import path_shape
from pipeline.outputs import networks
from pipeline.outputs.images import IMAGES, autoencoder_of, decoder, source_examples
from pipeline.outputs.networks import path_of
from pipeline.outputs.reference import RealFeatures, load_features, load_reference
from pipeline.outputs.results import EvaluationResult, LikelihoodResult, MemorisationResult, PathResult, Score
from pipeline.recipe.sections import Evaluation
from pipeline.reporting.page.rounds import rounds
from pipeline.runtime import ranks
from pipeline.runtime.device import prepare
from pipeline.runtime.job import Job
from pipeline.runtime.seeds import derive
from storage.artifact import Artifact
from storage.atomic import write_json
from storage.checksummed_json import read_checksummed, write_checksummed
from storage.imageset import ImageSet

PROBED, STEPS = 256, 32  # paths at most that straightness and curvature are estimated on, and Euler steps of each
SCORES = "scores.json"


def run(job: Job) -> EvaluationResult | None:
    device = prepare(job.compute)
    config: Evaluation = job.config
    images = ImageSet.open(job.inputs["data"].path(IMAGES))
    reference = job.inputs["reference"]
    extractor, real = load_reference(reference, images.originals, device)
    seed = derive(config.seed, "evaluation")
    start = start_of(seed, images.shape, source_examples(job.inputs.get("source"), images, "test"), device)
    held_out = TargetImages.of(images, job.inputs["student"].config.get("condition"))
    shared = _shared_protocol(job, images, held_out)
    labels = (
        like_training(images, config.samples, seed)
        if held_out is None
        else held_out.labels(torch.arange(config.samples))
    )
    rows, unseen = (load_features(reference, split) for split in ("train", "test"))
    panel = _panel(config, reference, rows, unseen, extractor, device)
    decode = decoder(job.inputs["data"], device)
    ruler = Evaluator(
        extractor,
        real,
        labels,
        images.originals.levels,
        job.compute.inference_batch,
        device,
        shared,
        decode,
        None if held_out is None else held_out.images,
        panel,
        unseen.moments,
    )

    ways = list(samplers(job, start, held_out, device))
    scores = _scored(job, ways, ruler)
    likelihood = _likelihood(job, images, device)
    if not ranks.first():
        return None

    gallery = Gallery(images, start, held_out, "source" in job.inputs, config.samples, decode, device)
    gallery.grid(ways).save(job.out / "samples.png")
    for name in ("trajectories", "interpolations"):
        picture = getattr(gallery, name)(ways)
        if picture is not None:
            picture.save(job.out / f"{name}.png")
        job.pause_point()
    memorisation = _memorisation(job, ways, scores, ruler, gallery)
    flat = [score for some in scores for score in some]
    write_json(job.out / SCORES, [score.model_dump(mode="json") | {"digest": score.digest} for score in flat])
    paths = [_path(job, role, images, start, held_out, device) for role in students_among(job.inputs)]
    warnings = frechet_warnings(min(_different(job, images), real.count), len(real.mean))
    warnings += [round.verdict for round in rounds(students_among(job.inputs), flat, paths) if round.verdict]
    return EvaluationResult(
        protocol=_digest(shared),
        floor=reference.metrics["split_half"],
        scores=tuple(flat),
        curvature=paths[0].curvature,
        likelihood=likelihood,
        paths=tuple(paths),
        floors=panel.floors() if panel else {},
        held_out={reference.metrics["metric"]: reference.metrics["held_out"]}
        | (panel.held_out_distances() if panel else {}),
        memorisation=tuple(memorisation),
        warnings=tuple(warnings),
    )


def _scored(job: Job, ways: Sequence[SamplerUnderTest], ruler: Evaluator) -> list[tuple[Score, ...]]:
    """The scores of each way of sampling, those of an earlier run of this stage not made again."""
    scores = ranks.agreed(_finished(job))
    for number, entry in enumerate(ways):
        if number >= len(scores):
            scores.append(ruler.score(entry, job.config.samples, job))
            if ranks.first():
                write_checksummed(
                    job.work / SCORES,
                    {"scores": [[score.model_dump(mode="json") for score in some] for some in scores]},
                )
            job.saved(len(scores), len(ways), "scores")
        job.progress(number + 1, len(ways), "scores")
        job.pause_point()
    return scores


def _panel(
    config: Evaluation,
    reference: Artifact,
    real: RealFeatures,
    held_out: RealFeatures,
    extractor: nn.Module,
    device: torch.device,
) -> MetricSuite | None:
    """The metrics that are asked for beside the Frechet distance."""
    if not config.metrics:
        return None
    return MetricSuite(
        config.metrics,
        reference.metrics["metric"],
        real.rows,
        config.samples,
        getattr(extractor, "logits", None),
        derive(config.seed, "metrics") % 2**32,
        device,
        held_out.rows,
    )


def _path(
    job: Job, role: str, images: ImageSet, start: Start, held_out: TargetImages | None, device: torch.device
) -> PathResult:
    """How straight a model's ways are, with its first average and without guidance."""
    artifact = job.inputs[role]
    network, path = networks.load_network(artifact, device), path_of(artifact)
    rows = torch.arange(min(PROBED, job.config.samples))
    labels, condition = conditioning_for(rows, images, held_out, device)
    shape = path_shape(student_velocity(network, path, labels, condition=condition), path.start(start(rows)), STEPS)
    return PathResult(
        model=role, straightness=shape.straightness, curvature=shape.curvature, steps=STEPS, paths=len(rows)
    )


def _memorisation(
    job: Job, ways: Sequence[SamplerUnderTest], scores: Sequence[tuple[Score, ...]], ruler: Evaluator, gallery: Gallery
) -> list[MemorisationResult]:
    """Each model's samples of the best Frechet distance against their nearest training images, and a picture."""
    best: dict[str, tuple[float, SamplerUnderTest, Score]] = {}
    for entry, (first, *_) in zip(ways, scores, strict=True):
        if entry.walk is not None or entry.model == "teacher":
            best[entry.model] = min(
                best.get(entry.model, (float("inf"), entry, first)),
                (first.value, entry, first),
                key=lambda item: item[0],
            )
    training = TrainingSetNeighbours(gallery.images.originals, job.inputs["data"].config["flips"], gallery.device)
    found: list[tuple[SamplerUnderTest, Tensor, Tensor, Tensor]] = []
    results = []
    for _, entry, score in best.values():
        rows = torch.arange(min(COMPARED, job.config.samples))
        samples = torch.cat([ruler.images(entry, part)[0] for part in rows.split(ruler.batch)])
        distances, neighbours = training.nearest(samples)
        found.append((entry, samples, distances, neighbours))
        judged = training.judged(distances)
        if judged is not None:
            results.append(
                MemorisationResult(
                    model=entry.model,
                    solver=entry.solver,
                    nfe=score.nfe,
                    samples=judged.samples,
                    held_out=judged.held_out,
                    near=judged.near,
                    copies=judged.copies,
                    generated=len(samples),
                    real=len(training.held_out),
                    train=len(training.train),
                )
            )
        job.pause_point()
    picture = gallery.neighbours(found, training)
    if picture is not None:
        picture.save(job.out / "neighbours.png")
    return results


def _likelihood(job: Job, images: ImageSet, device: torch.device) -> LikelihoodResult | None:
    if job.config.likelihood is None:
        return None
    network = networks.load_network(job.inputs["student"], device)
    return student_bits(network, images, job.config.likelihood, job, device)


def _different(job: Job, images: ImageSet) -> int:
    """Samples that can differ: what starts from the same source image with the same class ends in the same image."""
    samples = job.config.samples
    if "source" not in job.inputs:
        return samples
    return min(samples, job.inputs["source"].metrics["test"] * len(images.classes or " "))


def _shared_protocol(job: Job, images: ImageSet, held_out: TargetImages | None) -> dict[str, Any]:
    """What scores must have in common to share a table."""
    config: Evaluation = job.config
    reference = job.inputs["reference"]
    return {
        "metric": reference.metrics["metric"],
        "extractor": reference.metrics["extractor"],
        "reference": reference.fingerprint[:12],
        "data": images.name,
        "split": "train",
        "n_real": reference.metrics["images"],
        "n_held_out": job.inputs["data"].metrics["test"],
        "n_fake": config.samples,
        "quantised": f"{images.originals.levels} levels, rounded half up",
        "labels": "in the proportions of the training split" if images.classes else "none",
        "seed": config.seed,
        **_image_to_image(job, held_out),
        **reference.metrics["facts"],
        **autoencoder_of(job.inputs["data"]),
    }


def _image_to_image(job: Job, held_out: TargetImages | None) -> dict[str, Any]:
    """What samples are made from beside noise and class, if anything."""
    if held_out is not None:
        classes = {} if held_out.examples.labels is None else {"labels": "those of the test images"}
        return {"condition": held_out.words} | classes
    if "source" in job.inputs:
        source = job.inputs["source"]
        return {
            "start": f"{source.metrics['name']} {source.fingerprint[:12]}, test split, {source.metrics['test']} "
            "images in turn"
        }
    return {}


def _digest(protocol: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:16]


def _finished(job: Job) -> list[tuple[Score, ...]]:
    """Scores of an earlier run of this stage, by entry; what is not as it was written is measured again."""
    found = read_checksummed(job.work / SCORES) or {"scores": []}
    try:
        return [tuple(Score.model_validate(item) for item in some) for some in found["scores"]]
    except ValueError:  # of a version that says other things of a score
        return []
