"""The evaluation: Frechet distance against network calls, for teacher, student and one-step student.

Every model's sample number i starts from the same noise and class; generation and statistics are one pass. Each score
carries the protocol that made it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from models.tarflow import schedule_from_dict
from pipeline import configs, networks
from pipeline.configs import Evaluation
from pipeline.examples import Examples
from pipeline.job import Job
from pipeline.labels import like_training, rows_like
from pipeline.metrics import curvature as curvature_of
from pipeline.metrics import frechet_warnings
from pipeline.pictures import labelled_rows
from pipeline.results import EvaluationResult, Score
from pipeline.runtime import derive, prepare
from pipeline.sampling import class_labels, starting_noise, student_samples, teacher_samples
from pipeline.scoring import Entry, Ruler
from pipeline.stages.data import IMAGES
from pipeline.stages.reference import load_reference
from storage.atomic import write_json
from storage.imageset import ImageSet

SHOWN = 20  # images in a row of the picture
PROBED = 256  # paths at most that curvature is estimated on
SCORES = "scores.json"


def run(job: Job) -> EvaluationResult:
    device = prepare(job.compute)
    config: Evaluation = job.config
    images = ImageSet.open(job.inputs["data"].path(IMAGES))
    reference = job.inputs["reference"]
    extractor, real = load_reference(reference, images, device)
    shared = _shared_protocol(job, images)
    labels = like_training(images, config.samples, derive(config.seed, "evaluation"))

    entries = list(_entries(job, images, device))
    scores = _finished(job)
    ruler = Ruler(extractor, real, labels, images.levels, job.compute.batch, device, shared)
    for number, entry in enumerate(entries):
        if number >= len(scores):
            scores.append(ruler.score(entry, config.samples, job))
            write_json(job.work / SCORES, [score.model_dump(mode="json") for score in scores])
            job.saved(len(scores), len(entries), "scores")
        job.progress(number + 1, len(entries), "scores")
        job.pause_point()

    _draw(job, entries, images, device)
    write_json(job.out / SCORES, [score.model_dump(mode="json") for score in scores])
    network = networks.load_network(job.inputs["student"], device)
    rows = torch.arange(min(PROBED, config.samples))
    probe = class_labels(rows, len(images.classes or ()), device)
    z = starting_noise(derive(config.seed, "evaluation"), rows, images.shape, device)
    return EvaluationResult(protocol=_digest(shared), floor=reference.metrics["split_half"], scores=tuple(scores),
                            curvature=curvature_of(lambda x, t: network(x, t, probe), z),
                            warnings=tuple(frechet_warnings(min(config.samples, real.count), len(real.mean))))


def _entries(job: Job, images: ImageSet, device: torch.device) -> Iterator[Entry]:
    """What the recipe asks for, teacher first, then each student by growing number of calls."""
    config: Evaluation = job.config
    seed = derive(config.seed, "evaluation")
    if "teacher" in job.inputs and config.teacher:
        yield _teacher_entry(job, seed, device)
    for model in ("student", "onestep"):
        if model not in job.inputs:
            continue
        artifact = job.inputs[model]
        network = networks.load_network(artifact, device)
        training = artifact.config["training"]
        for how in getattr(config, model):
            for nfe in how.nfe or (0,):  # dopri5 chooses its calls
                def make(rows, labels, network=network, how=how, nfe=nfe):
                    z = starting_noise(seed, rows, images.shape, device)
                    return student_samples(network, z, labels, how, nfe)

                yield Entry(model, how.solver, nfe, {"grid": how.grid, "guidance": how.guidance, **_trained(training)},
                            make)


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


def _trained(training: dict[str, Any]) -> dict[str, Any]:
    return {"images_seen": training["images"], "ema_half_life": training["ema"]}


def _shared_protocol(job: Job, images: ImageSet) -> dict[str, Any]:
    """What scores must have in common to share a table."""
    config: Evaluation = job.config
    reference = job.inputs["reference"]
    return {"metric": f"FD-{job.inputs['reference'].config['extractor']}",
            "extractor": reference.metrics["extractor"], "reference": reference.fingerprint[:12],
            "data": images.name, "split": "train", "n_real": reference.metrics["images"], "n_fake": config.samples,
            "quantised": f"{images.levels} levels, rounded half up", "resized": "no",
            "labels": "in the proportions of the training split" if images.classes else "none",
            "seed": config.seed}


def _digest(protocol: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:16]


def _finished(job: Job) -> list[Score]:
    """Scores of an earlier run of this stage."""
    try:
        return [Score.model_validate(item) for item in json.loads((job.work / SCORES).read_bytes())]
    except (OSError, ValueError):
        return []


def _draw(job: Job, entries: list[Entry], images: ImageSet, device: torch.device) -> None:
    """Data, then the same noise and classes through each model at each number of calls."""
    rows = torch.arange(min(SHOWN, job.config.samples))
    labels = class_labels(rows, len(images.classes or ()), device)
    train = Examples(images.train.images, images.train.labels, images.levels)
    picture = [("data", train.pixels(rows_like(train, rows, labels)))]
    for entry in entries:
        picture.append((_caption(entry), entry.make(rows, labels)[0].cpu()))
    labelled_rows(picture).save(job.out / "samples.png")


def _caption(entry: Entry) -> str:
    if entry.model == "teacher":
        return entry.model
    calls = "as many calls as it takes" if not entry.nfe else "1 call" if entry.nfe == 1 else f"{entry.nfe:g} calls"
    return f"{entry.model}, {calls}"
