"""The evaluation: Frechet distance against network calls, for teacher, student and one-step student.

Every model's sample number i starts from the same noise and class; generation and statistics are one pass. Each score
carries the protocol that made it.

A student with a condition is asked for the test images in turn, and is also measured by how near it comes to them. One
with a source starts from the source's test images in turn.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from models.tarflow import schedule_from_dict
from pipeline import configs, networks, ranks
from pipeline.conditions import HeldOut
from pipeline.configs import Evaluation
from pipeline.examples import Examples
from pipeline.job import Job
from pipeline.labels import like_training, rows_like
from pipeline.metrics import curvature as curvature_of
from pipeline.metrics import frechet_warnings
from pipeline.pictures import labelled_rows
from pipeline.results import EvaluationResult, LikelihoodResult, Score
from pipeline.runtime import derive, prepare
from pipeline.sampling import (
    Start,
    path_of,
    start_of,
    student_samples,
    student_velocity,
    teacher_samples,
    told,
)
from pipeline.scoring import Entry, Ruler
from pipeline.stages.data import IMAGES, autoencoder_of, decoder
from pipeline.stages.reference import load_reference
from pipeline.student_likelihood import student_bits
from storage.artifact import Artifact
from storage.atomic import write_json
from storage.imageset import ImageSet

SHOWN = 20  # images in a row of the picture
PROBED = 256  # paths at most that curvature is estimated on
SCORES = "scores.json"
ENLARGED = "enlarged"  # small images made large without a network: what super-resolution has to beat


def run(job: Job) -> EvaluationResult | None:
    device = prepare(job.compute)
    config: Evaluation = job.config
    images = ImageSet.open(job.inputs["data"].path(IMAGES))
    reference = job.inputs["reference"]
    extractor, real = load_reference(reference, images.originals, device)
    seed = derive(config.seed, "evaluation")
    start = start_of(seed, images, job.inputs.get("source"), "test", device)
    held_out = HeldOut.of(images, job.inputs["student"].config.get("condition"))
    shared = _shared_protocol(job, images, held_out)
    labels = like_training(images, config.samples, seed) if held_out is None else \
        held_out.labels(torch.arange(config.samples))

    entries = list(_entries(job, start, held_out, device))
    scores = ranks.agreed(_finished(job))
    decode = decoder(job.inputs["data"], device)
    ruler = Ruler(extractor, real, labels, images.originals.levels, job.compute.batch, device, shared, decode,
                  None if held_out is None else held_out.images)
    for number, entry in enumerate(entries):
        if number >= len(scores):
            scores.append(ruler.score(entry, config.samples, job))
            if ranks.first():
                write_json(job.work / SCORES, [[score.model_dump(mode="json") for score in some] for some in scores])
            job.saved(len(scores), len(entries), "scores")
        job.progress(number + 1, len(entries), "scores")
        job.pause_point()

    likelihood = _likelihood(job, images, device)
    if not ranks.first():
        return None
    _draw(job, entries, images, start, held_out, decode, device)
    scores = [score for some in scores for score in some]
    write_json(job.out / SCORES, [score.model_dump(mode="json") for score in scores])
    student = job.inputs["student"]
    network, path = networks.load_network(student, device), path_of(student)
    rows = torch.arange(min(PROBED, config.samples))
    probe, condition = told(rows, images, held_out, device)
    velocity = student_velocity(network, path, probe, condition=condition)
    warnings = frechet_warnings(min(_different(job, images), real.count), len(real.mean))
    return EvaluationResult(protocol=_digest(shared), floor=reference.metrics["split_half"], scores=tuple(scores),
                            curvature=curvature_of(velocity, path.start(start(rows))),
                            likelihood=likelihood, warnings=tuple(warnings))


def _entries(job: Job, start: Start, held_out: HeldOut | None, device: torch.device) -> Iterator[Entry]:
    """What the recipe asks for: what needs no student first, then each student by growing number of calls."""
    config: Evaluation = job.config
    if "teacher" in job.inputs and config.teacher:
        yield _teacher_entry(job, derive(config.seed, "evaluation"), device)
    if held_out is not None:
        yield Entry(ENLARGED, "repeated pixels", 0, {}, lambda rows, labels: (held_out.conditions(rows, device), 0.0))
        yield Entry(ENLARGED, "bicubic", 0, {}, lambda rows, labels: (held_out.bicubic(rows).to(device), 0.0))
    for model in ("student", "onestep"):
        if model not in job.inputs:
            continue
        artifact = job.inputs[model]
        training, path = artifact.config["training"], path_of(artifact)
        for how in getattr(config, model):
            network = networks.load_network(artifact, device, how.ema)
            facts = {"grid": how.grid, "guidance": how.guidance, **_trained(training, how.ema), **_path(artifact)}
            for nfe in how.nfe or (0,):  # dopri5 chooses its calls
                def make(rows, labels, network=network, path=path, how=how, nfe=nfe):
                    condition = None if held_out is None else held_out.conditions(rows, device)
                    return student_samples(network, start(rows), labels, how, nfe, path, condition)

                yield Entry(model, how.solver, nfe, facts, make)


def _teacher_entry(job: Job, seed: int, device: torch.device) -> Entry:
    teacher = job.inputs["teacher"]
    flow = networks.load_network(teacher, device)
    config = configs.Teacher.model_validate(teacher.config)
    schedules = [schedule_from_dict(fields) for fields in teacher.metrics["schedule"]]

    def make(rows: Tensor, labels: Tensor | None) -> tuple[Tensor, float]:
        return teacher_samples(flow, rows, labels, seed, config, schedules, device), 0.0

    facts = {"guidance": config.guidance, "annealed": config.annealed, "temperature": config.temperature,
             "attention_temperature": config.attention_temperature, "denoised": config.denoise, "noise": config.noise,
             **_trained(teacher.config["training"])}
    return Entry("teacher", "inverse", 0, facts, make)


def _trained(training: dict[str, Any], average: str | None = None) -> dict[str, Any]:
    return {"images_seen": training["images"], "ema": average or f"half-life-{training['ema']}"}


def _likelihood(job: Job, images: ImageSet, device: torch.device) -> LikelihoodResult | None:
    if job.config.likelihood is None:
        return None
    network = networks.load_network(job.inputs["student"], device)
    return student_bits(network, images, job.config.likelihood, job, device)


def _path(artifact: Artifact) -> dict[str, Any]:
    """The path of a velocity, where it is not the straight one from the data to the noise."""
    spec = artifact.config.get("path", {"kind": "linear"})
    if spec["kind"] == "linear":
        return {}
    return {"path": " ".join([spec["kind"], *(f"{name} {value:g}" for name, value in spec.items() if name != "kind")])}


def _different(job: Job, images: ImageSet) -> int:
    """Samples that can differ: what starts from the same source image with the same class ends in the same image."""
    samples = job.config.samples
    if "source" not in job.inputs:
        return samples
    return min(samples, job.inputs["source"].metrics["test"] * len(images.classes or " "))


def _shared_protocol(job: Job, images: ImageSet, held_out: HeldOut | None) -> dict[str, Any]:
    """What scores must have in common to share a table."""
    config: Evaluation = job.config
    reference = job.inputs["reference"]
    return {"metric": reference.metrics["metric"], "extractor": reference.metrics["extractor"],
            "reference": reference.fingerprint[:12],
            "data": images.name, "split": "train", "n_real": reference.metrics["images"], "n_fake": config.samples,
            "quantised": f"{images.originals.levels} levels, rounded half up",
            "labels": "in the proportions of the training split" if images.classes else "none",
            "seed": config.seed, **_image_to_image(job, held_out), **reference.metrics["facts"],
            **autoencoder_of(job.inputs["data"])}


def _image_to_image(job: Job, held_out: HeldOut | None) -> dict[str, Any]:
    """What samples are made from beside noise and class, if anything."""
    if held_out is not None:
        classes = {} if held_out.examples.labels is None else {"labels": "those of the test images"}
        return {"condition": held_out.words} | classes
    if "source" in job.inputs:
        source = job.inputs["source"]
        return {"start": f"{source.metrics['name']} {source.fingerprint[:12]}, test split, {source.metrics['test']} "
                         "images in turn"}
    return {}


def _digest(protocol: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:16]


def _finished(job: Job) -> list[tuple[Score, ...]]:
    """Scores of an earlier run of this stage, by entry."""
    try:
        return [tuple(Score.model_validate(item) for item in some)
                for some in json.loads((job.work / SCORES).read_bytes())]
    except (OSError, ValueError):
        return []


def _draw(job: Job, entries: list[Entry], images: ImageSet, start: Start, held_out: HeldOut | None,
          decode: Callable[[Tensor], Tensor], device: torch.device) -> None:
    """What samples start from or should be, then the same noise and classes through each model at each number of calls.
    """
    rows = torch.arange(min(SHOWN, job.config.samples))
    labels, _ = told(rows, images, held_out, device)
    if held_out is not None:
        picture = [("data, held out", held_out.images(rows))]
    elif "source" in job.inputs:
        picture = [("source", start(rows).cpu())]
    else:
        real = images.originals
        train = Examples(real.train.images, real.train.labels, real.levels)
        picture = [("data", train.pixels(rows_like(train, rows, labels)))]
    for entry in entries:
        picture.append((_caption(entry), decode(entry.make(rows, labels)[0]).cpu()))
    labelled_rows(picture).save(job.out / "samples.png")


def _caption(entry: Entry) -> str:
    if entry.model == "teacher":
        return entry.model
    if entry.model == ENLARGED:
        return f"{entry.model}, {entry.solver}"
    calls = "as many calls as it takes" if not entry.nfe else "1 call" if entry.nfe == 1 else f"{entry.nfe:g} calls"
    return f"{entry.model}, {calls}"
