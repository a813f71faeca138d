"""The parts of a stage whose times add up to its own: how much work of which kind each has.

The names of parts are those under which the stages measure them (`pipeline.runtime.timings`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from models.tarflow import TarFlowConfig
from pipeline.engine.dag import IMAGES, Node, student_among, students_among
from pipeline.metrics import Inception, build_classifier, classifier_images
from pipeline.outputs.banks import ENCODE_BATCH, sigma_draws
from pipeline.outputs.networks import NetworkConfig, build, student_architecture, teacher_architecture
from pipeline.recipe import sections as configs
from pipeline.recipe.fingerprint import fingerprint_fields
from pipeline.recipe.sections import Compute, Training
from pipeline.training.estimate import ImageShape, estimate_of, first_student
from pipeline.training.flops import Work, counted_here
from storage.checksummed_json import json_digest

REST = "rest"
DOPRI5_CALLS = 100  # network calls of dopri5 at the tolerance of samples; the flow decides, so this is a guess
DECODING = 4.0  # forward passes of a TarFlow that decoding one image takes, by a calibrated schedule and denoised
CALIBRATION = 600.0  # images decoded to choose the schedules
DIAGNOSED_PER_SECOND = 1e7  # numbers of noise in the tests of a bank, and of a student's pairs
READ = {"images": 2e-3}  # seconds to read an image, from single files
READ_ARRAY = 5e-5  # the same, from one file of arrays


@dataclass(frozen=True)
class Part:
    """Work of one kind.

    Attributes:
        name: of the part in its stage.
        amount: units of work.
        unit: of the work, such as "images".
        facts: everything but the device that its speed depends on.
        work: the counted work of one unit; None where nothing is counted.
        seconds: what is added for all units where the part is estimated: files, statistics, pictures.
        precision: of the products.
        counted: units of work in one of what the stage counts, such as the network calls of a pair.
    """

    name: str
    amount: float
    unit: str
    facts: Mapping[str, Any]
    work: Callable[[], Work] | None = None
    seconds: float = 0.0
    precision: str = "float32"
    counted: float = 1.0


def parts(node: Node, shape: ImageShape, compute: Compute) -> list[Part]:
    """The parts of a stage, the rest last. `shape` is that of its data."""
    match node.config:
        case configs.Data() as config:
            own, rest = [], _rest(node, shape, 3.0 + shape.rows * READ.get(config.source, READ_ARRAY))
        case configs.Reference() as config:
            own, rest = _reference(config, shape), _rest(node, shape, 5.0)
        case configs.Teacher() as config:
            own = [_training(node, config.training, shape, compute), _likelihood(config, shape, compute)]
            forward = partial(forward_work, teacher_architecture(config, shape))
            decoded = DECODING * (config.preview_samples + CALIBRATION * (config.decoding == "calibrated"))
            rest = _rest(node, shape, 3.0, lambda: forward() * decoded)
        case configs.NoiseBank() as config:
            own, rest = _bank(node, config, shape), _rest(node, shape, 3.0 + _diagnosed(shape))
        case configs.Potentials() as config:
            own, rest = [], _rest(node, shape, 3.0, lambda: _ascent(config, shape))
        case configs.Student() as config:
            own = [_training(node, config.training, shape, compute)]
            rest = _rest(node, shape, 3.0 + _diagnosed(shape))
        case configs.Reflow() | configs.OneStep() as config:
            own, rest = [_training(node, config.training, shape, compute)], _rest(node, shape, 3.0)
        case configs.Pairs() as config:
            own, rest = _pairs(node, config, shape), _rest(node, shape, 3.0)
        case configs.Evaluation() as config:
            own = _evaluation(node, config, shape, compute)
            rest = _rest(node, shape, 5.0 * len(config.metrics) + 5.0, lambda: _pictures(node, config, shape))
        case _:
            own, rest = [], _rest(node, shape, 3.0)
    return [*own, rest]


def network_digest(architecture: NetworkConfig) -> str:
    """A name for all networks of one architecture. The number of classes changes a table, and no time."""
    facts = {name: value for name, value in asdict(architecture).items() if name != "classes"}
    return json_digest([type(architecture).__name__, facts])[:16]


@lru_cache(maxsize=64)
def forward_work(architecture: NetworkConfig, images: int = ENCODE_BATCH) -> Work:
    """Of one image on its way through a network in evaluation, in a batch of `images`."""
    with FakeTensorMode(), torch.no_grad():
        network = build(architecture, 0).eval()
        x = torch.empty(images, architecture.channels, architecture.size, architecture.size)
        condition = getattr(architecture, "condition_channels", 0)
        options = {"condition": torch.empty(images, condition, *x.shape[2:])} if condition else {}
        if getattr(architecture, "interval", False):
            options["r"] = torch.empty(images)
        arguments = (x, None) if isinstance(architecture, TarFlowConfig) else (x, torch.empty(images), None)
        return counted_here(lambda: network(*arguments, **options)) * (1 / images)


# -- trainings -----------------------------------------------------------------------------------------------------


def _training(node: Node, training: Training, shape: ImageShape, compute: Compute) -> Part:
    config = node.config
    facts = {
        "work": "training",
        "network": network_digest(_trained_architecture(node, shape)),
        "batch": training.batch,
        "accumulate": training.accumulate,
        "precision": training.precision,
        "optimizer": training.optimizer,
        "averages": 1 + len(training.averages),
        "compiled": compute.compile,
        **{
            name: getattr(config, name).model_dump(mode="json")
            for name in ("coupling", "objective", "loss", "path")
            if hasattr(config, name)
        },
        **{name: getattr(config, name) for name in ("mode", "steps") if hasattr(config, name)},
    }
    if "potentials" in node.inputs:  # each noise is compared with every image
        facts["rows"] = shape.rows
    return Part(
        "training", training.steps * training.batch, "images", facts, partial(_step_work, node, shape), 0.0,
        training.precision,
    )  # fmt: skip


def _trained_architecture(node: Node, shape: ImageShape) -> NetworkConfig:
    if isinstance(node.config, configs.Teacher):
        return teacher_architecture(node.config, shape)
    return student_architecture(first_student(node), shape)


def _step_work(node: Node, shape: ImageShape) -> Work:
    """Of one image in a training step, with what the coupling computes for it."""
    work, coupling = estimate_of(node, shape).work, getattr(node.config, "coupling", None)
    assert work is not None
    if getattr(coupling, "online", False):
        work += forward_work(teacher_architecture(node.inputs["teacher"].config, shape))
    if "potentials" in node.inputs:
        work += Work(flops=2.0 * shape.rows / max(1, len(shape.classes)) * shape.values)
    return work


def _likelihood(config: configs.Teacher, shape: ImageShape, compute: Compute) -> Part:
    network, batch = teacher_architecture(config, shape), compute.inference_batch
    facts = {"work": "likelihood", "network": network_digest(network), "batch": batch}
    return Part("likelihood", shape.rows + shape.test, "images", facts, partial(forward_work, network))


# -- banks ---------------------------------------------------------------------------------------------------------


def _bank(node: Node, config: configs.NoiseBank, shape: ImageShape) -> list[Part]:
    network = teacher_architecture(node.inputs["teacher"].config, shape)
    facts = {"network": network_digest(network), "batch": ENCODE_BATCH}
    forward = partial(forward_work, network)
    measured = shape.rows * sigma_draws(config.draws_per_image, shape.rows, shape.values)
    return [
        Part("sigma", measured, "images", {"work": "sigma", **facts}, forward),
        Part(
            "bank",
            shape.rows * config.draws_per_image,
            "images",
            {"work": "bank", **facts, "dtype": config.dtype, "bits": config.mantissa_bits},
            forward,
        ),
    ]


def _pairs(node: Node, config: configs.Pairs, shape: ImageShape) -> list[Part]:
    network = student_architecture(first_student(node), shape)
    calls = config.nfe or DOPRI5_CALLS
    facts = {
        "network": network_digest(network),
        "batch": ENCODE_BATCH,
        **{name: getattr(config, name) for name in ("solver", "guidance", "dtype")},
    }
    forward = partial(forward_work, network)
    counts = {"pairs": config.count * config.intervals, **({"forward": shape.rows} if config.forward else {})}
    each = {"pairs": calls / config.intervals, "forward": float(calls)}
    return [
        Part(name, count * each[name], "network calls", {"work": name, **facts}, forward, counted=each[name])
        for name, count in counts.items()
    ]


# -- evaluation ----------------------------------------------------------------------------------------------------


def _reference(config: configs.Reference, shape: ImageShape) -> list[Part]:
    facts = {"extractor": config.extractor, "channels": shape.channels, "size": shape.size}
    training = {"rows": shape.rows, "classes": len(shape.classes)}
    return [
        Part("extractor", 1, "networks", {"work": "extractor", **facts, **training}, partial(_fitted, config, shape)),
        Part(
            "features",
            shape.rows + shape.test,
            "images",
            {"work": "real features", **facts},
            partial(extractor_work, config.extractor, shape),
        ),
    ]


def _fitted(config: configs.Reference, shape: ImageShape) -> Work:
    """The training of the classifier: forward and backward, and the features and classes of all images once."""
    if config.extractor != "classifier":
        return Work()
    forward = extractor_work(config.extractor, shape)
    return forward * (3 * classifier_images(shape.rows) + shape.rows + shape.test)


@lru_cache(maxsize=16)
def extractor_work(extractor: str, shape: ImageShape) -> Work:
    """Of the features of one image."""
    if extractor == "pixels":
        return Work(traffic=8.0 * shape.values)
    with FakeTensorMode(), torch.no_grad():
        if extractor == "inception":
            return counted_here(partial(Inception().network, torch.empty(8, 3, shape.size, shape.size))) * (1 / 8)
        network = build_classifier(shape.channels, shape.size, max(2, len(shape.classes)))
        return counted_here(partial(network, torch.empty(128, shape.channels, shape.size, shape.size))) * (1 / 128)


def _evaluation(node: Node, config: configs.Evaluation, shape: ImageShape, compute: Compute) -> list[Part]:
    batch, own, samplers = compute.inference_batch, [], 0
    if config.teacher and "teacher" in node.inputs:
        own.append(_decoded(node.inputs["teacher"].config, config.samples, shape, batch))
        samplers += 1
    for model in [*students_among(node.inputs), *(["onestep"] if "onestep" in node.inputs else [])]:
        calls = network_calls(getattr(config, model, config.reflow))
        if model == "student" and config.noise_cost:  # once more, from encoded noise
            calls *= 2
        samplers += len(calls)
        network = student_architecture(first_student(node.inputs[model]), shape)
        facts = {"work": "sampling", "network": network_digest(network), "batch": batch}
        own.append(
            Part(
                f"sampling {model}",
                config.samples * sum(calls),
                "network calls",
                facts,
                partial(forward_work, network, batch),
            )
        )
    reference = node.inputs["reference"].config
    facts = {
        "work": "features",
        "extractor": reference.extractor,
        "channels": shape.channels,
        "size": shape.size,
        "batch": batch,
        "metrics": list(config.metrics),
    }
    work = partial(extractor_work, reference.extractor, shape)
    return [*own, Part("features", config.samples * samplers, "images", facts, work)]


def network_calls(sweeps: tuple[configs.Sweep, ...]) -> list[int]:
    """The NFE of each sampler."""
    return [nfe for sweep in sweeps for nfe in (sweep.nfe or (DOPRI5_CALLS,))]


def _decoded(config: configs.Teacher, samples: int, shape: ImageShape, batch: int) -> Part:
    network = teacher_architecture(config, shape)
    asked = {name: getattr(config, name) for name in ("decoding", "denoise", "noise_std")}
    facts = {"work": "decoding", "network": network_digest(network), "batch": batch, **asked}
    facts["guided"] = bool(config.guidance)
    passes = DECODING * (2 if config.guidance else 1)
    return Part("sampling teacher", samples, "images", facts, lambda: forward_work(network, batch) * passes)


# -- the rest ------------------------------------------------------------------------------------------------------


def _rest(node: Node, shape: ImageShape, seconds: float, work: Callable[[], Work] | None = None) -> Part:
    """Everything that has no part: files, statistics, pictures. Its time is measured of the same settings only; the
    seed and the length of a training do not matter."""
    settings = fingerprint_fields(node.config)
    settings.pop("seed", None)
    if "training" in settings:
        del settings["training"]
    facts = {
        "work": REST,
        "stage": node.stage.kind,
        "settings": json_digest(settings)[:16],
        "images": [shape.rows, shape.test, shape.channels, shape.size],
        "inputs": sorted(node.inputs),
    }
    if not (node.name in IMAGES or student_among(node.inputs) is None):
        facts["network"] = network_digest(student_architecture(first_student(node), shape))
    return Part(REST, 1, "stages", facts, work, seconds)


def _diagnosed(shape: ImageShape) -> float:
    """Seconds of the tests of noise against N(0, I)."""
    return min(2**26, shape.rows * shape.values) / DIAGNOSED_PER_SECOND


def _ascent(config: configs.Potentials, shape: ImageShape) -> Work:
    """At most `passes` passes, each noise against the images of its class."""
    cells = shape.rows / max(1, len(shape.classes) * config.within_classes)
    return Work(flops=2.0 * config.passes * shape.rows * cells * shape.values)


def _pictures(node: Node, config: configs.Evaluation, shape: ImageShape) -> Work:
    """The paths of each student, the nearest training images of samples, and the student's likelihood."""
    work = Work()
    for model in students_among(node.inputs):
        forward = forward_work(student_architecture(first_student(node.inputs[model]), shape))
        work += forward * (32 * min(256, config.samples))  # `PATH_STEPS`, `PATHS` of the stage
        if config.likelihood and model == "student":
            images = min(config.likelihood.images, shape.test)
            work += forward * (DOPRI5_CALLS * images * (1 + 2 * config.likelihood.probes))
    compared = (1 + len(students_among(node.inputs))) * min(config.samples, 1000) + shape.test
    return work + Work(flops=2.0 * compared * shape.rows * shape.values)
