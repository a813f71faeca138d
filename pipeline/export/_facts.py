"""sampler.json: the sampler settings, number by number, and the shape, range and levels of samples."""

from __future__ import annotations

import json
from typing import Any

import torch

from models.load import FORMAT
from pipeline.data.autoencoder import Autoencoder
from pipeline.export._samplers import recommended, written
from pipeline.export._subject import Subject
from pipeline.outputs.images import AUTOENCODER
from pipeline.outputs.networks import schedules_of
from pipeline.recipe.sections import Teacher


def sampler_facts(subject: Subject) -> dict[str, Any]:
    """The settings that `models.load` reads. Raises InputError where latents need a package that is missing."""
    images = subject.images
    originals = images.originals
    facts = {
        "format": FORMAT,
        "recipe": subject.recipe,
        "model": subject.model,
        "average": subject.ema,
        "shape": list(images.shape),
        "classes": images.classes,
        "images": {
            "shape": list(originals.shape),
            "range": [-1, 1],
            "levels": originals.levels,
            "rounding": "u = floor((x + 1) / 2 (levels - 1) + 1/2)",
        },
        "latents": _latents(subject),
    }
    return facts | (_teacher(subject) if subject.model == "teacher" else _student(subject))


def text(facts: dict[str, Any]) -> str:
    """JSON with one line for each field, and one for each way of sampling."""
    lines = []
    for key, value in facts.items():
        shown = json.dumps(value, allow_nan=False, ensure_ascii=False)
        if key == "ways":
            shown = "[\n" + ",\n".join(f"    {json.dumps(way, allow_nan=False)}" for way in value) + "\n  ]"
        lines.append(f"  {json.dumps(key)}: {shown}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _student(subject: Subject) -> dict[str, Any]:
    path, ways, scores = subject.path, subject.ways, subject.scores
    metric = scores[0].metric if any(way.value is not None for way in ways) else None
    return {
        "path": subject.artifact.config.get("path", {"kind": "linear"}),
        "noise_scale": path.coefficients(torch.ones((), dtype=torch.float64)).s.item(),
        "metric": metric,
        "recommended": recommended(ways, metric),
        "ways": [written(way, path) for way in ways],
    }


def _teacher(subject: Subject) -> dict[str, Any]:
    config = Teacher.model_validate(subject.artifact.config)
    bank = subject.artifacts.get("bank")
    return {
        "schedules": [schedule.to_dict() for schedule in schedules_of(subject.artifact, subject.average)],
        "guidance": config.guidance,
        "annealed": config.annealed,
        "attention_temperature": config.attention_temperature,
        "temperature": config.temperature,
        "noise": config.noise_std,
        "denoise": config.noise_std if config.denoise else 0.0,
        "sigma_f": None if bank is None else bank.metrics["sigma_f"],
    }


def _latents(subject: Subject) -> dict[str, Any] | None:
    """x = D(z / scale + shift), with one number for all channels or one for each; None where images are the samples."""
    folder = subject.artifacts["data"].path(AUTOENCODER)
    if not folder.is_dir():
        return None
    config = Autoencoder.load(folder).network.config
    mean, std = config.get("latents_mean"), config.get("latents_std")
    shift = [config.get("shift_factor") or 0.0] if mean is None else list(mean)
    scale = [config.scaling_factor] if std is None else [config.scaling_factor / value for value in std]
    return {"autoencoder": AUTOENCODER, "scale": scale, "shift": shift}
