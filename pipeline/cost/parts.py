"""The parts of a stage whose times add up to its own: how much work of which kind each has.

The names of parts are those under which the stages measure them (`pipeline.runtime.timings`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pipeline.cost.estimate import first_student, potentials_of, teacher_of
from pipeline.cost.flops import Work
from pipeline.cost.image_parts import DECODING, coding, evaluation, reference
from pipeline.cost.image_shape import ImageShape, real_images
from pipeline.cost.part import Part, network_digest
from pipeline.cost.work import (
    DOPRI5_CALLS,
    forward_work,
    network_calls,
    pictures_work,
    potentials_work,
    searched,
    step_work,
)
from pipeline.engine.dag import IMAGES, Node, students_among
from pipeline.outputs.banks import ENCODE_BATCH, sigma_draws
from pipeline.outputs.networks import NetworkConfig, student_architecture, teacher_architecture
from pipeline.outputs.whitening import whitening_draws
from pipeline.recipe import sections as configs
from pipeline.recipe.fingerprint import fingerprint_fields
from pipeline.recipe.sections import Compute, Training
from storage.checksummed_json import json_digest

REST = "rest"
CALIBRATION = 600.0  # images decoded to choose the schedules
DIAGNOSED_PER_SECOND = 1e7  # numbers of noise in the tests of a bank, and of a student's pairs
READ = {"images": 2e-3}  # seconds to read an image, from single files
READ_ARRAY = 5e-5  # the same, from one file of arrays


def parts(node: Node, shape: ImageShape, compute: Compute) -> list[Part]:
    """The parts of a stage, the rest last. `shape` is that of its data, which it fits (`fitting.check_fit`)."""
    match node.config:
        case configs.Data() as config:
            read = real_images(node, shape).rows * READ.get(config.source, READ_ARRAY)
            own, rest = (
                coding(node, "latents", "encode", shape.rows + shape.test, shape),
                _rest(node, shape, 3.0 + read),
            )
        case configs.Reference() as config:
            own, rest = reference(config, real_images(node, shape)), _rest(node, shape, 5.0)
        case configs.Teacher() as config:
            own = [_training(node, config.training, shape, compute), _likelihood(config, shape, compute)]
            own += _quality(node, config, shape)
            forward = partial(forward_work, teacher_architecture(config, shape))
            decoded = DECODING * (config.preview_samples + CALIBRATION * (config.decoding == "calibrated"))
            rest = _rest(node, shape, 3.0, lambda: forward() * decoded)
        case configs.NoiseBank() as config:
            own, rest = _bank(node, config, shape), _rest(node, shape, 3.0 + _diagnosed(shape))
        case configs.Potentials() as config:
            own, rest = [], _rest(node, shape, 3.0, partial(potentials_work, config, shape))
        case configs.Student() as config:
            own = [_training(node, config.training, shape, compute), *_quality(node, config, shape)]
            rest = _rest(node, shape, 3.0 + _diagnosed(shape))
        case configs.Reflow() | configs.OneStep() as config:
            own, rest = [_training(node, config.training, shape, compute)], _rest(node, shape, 3.0)
        case configs.Pairs() as config:
            own, rest = _pairs(node, config, shape), _rest(node, shape, 3.0)
        case configs.Evaluation() as config:
            own = evaluation(node, config, shape, compute)
            rest = _rest(node, shape, 5.0 * len(config.metrics) + 5.0, partial(pictures_work, node, config, shape))
        case _:
            own, rest = [], _rest(node, shape, 3.0)
    return [*own, rest]


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
    if "potentials" in node.inputs:  # each noise is compared with every image of its class
        facts["cells"] = searched(potentials_of(node), shape)
    if isinstance(config, configs.Student) and config.coupling.calls_teacher:
        facts["teacher"] = network_digest(teacher_architecture(teacher_of(node), shape))
    return Part(
        "training", training.steps * training.batch, "images", facts, partial(step_work, node, shape), 0.0,
        training.precision,
    )  # fmt: skip


def _quality(node: Node, config: configs.Teacher | configs.Student, shape: ImageShape) -> list[Part]:
    """The scores of a training: for each average at each point the bits of the test images, or the calls of samples."""
    match config.quality:
        case None:
            return []
        case configs.SampleQuality() as how:
            calls = how.samples * network_calls((how.sweep,))[0]
        case _:
            calls = shape.test
    network, averages = _trained_architecture(node, shape), 1 + len(config.training.averages)
    facts = {
        "work": "quality",
        "network": network_digest(network),
        "averages": averages,
        "settings": {
            name: value
            for name, value in config.quality.model_dump(mode="json").items()
            if name not in ("points", "use")
        },
        "test": shape.test,
    }
    return [Part("quality", config.quality.points, "points", facts, lambda: forward_work(network) * (averages * calls))]


def _trained_architecture(node: Node, shape: ImageShape) -> NetworkConfig:
    if isinstance(node.config, configs.Teacher):
        return teacher_architecture(node.config, shape)
    return student_architecture(first_student(node), shape)


def _likelihood(config: configs.Teacher, shape: ImageShape, compute: Compute) -> Part:
    network, batch = teacher_architecture(config, shape), compute.inference_batch
    facts = {"work": "likelihood", "network": network_digest(network), "batch": batch}
    return Part("likelihood", shape.rows + shape.test, "images", facts, partial(forward_work, network))


# -- banks ---------------------------------------------------------------------------------------------------------


def _bank(node: Node, config: configs.NoiseBank, shape: ImageShape) -> list[Part]:
    network = teacher_architecture(teacher_of(node), shape)
    facts = {"network": network_digest(network), "batch": ENCODE_BATCH}
    forward = partial(forward_work, network)
    works = {"sigma": (sigma_draws(config.draws_per_image, shape.rows, shape.values), facts)}
    if config.whiten:
        draws = whitening_draws(config.draws_per_image, shape.rows, shape.values, max(1, len(shape.classes)))
        works["whitening"] = draws, facts | {"values": shape.values}
    works["bank"] = config.draws_per_image, facts | {"dtype": config.dtype, "bits": config.mantissa_bits}
    return [
        Part(name, shape.rows * draws, "images", {"work": name, **more}, forward)
        for name, (draws, more) in works.items()
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
    if node.name not in IMAGES and students_among(node.inputs):
        facts["network"] = network_digest(student_architecture(first_student(node), shape))
    return Part(REST, 1, "stages", facts, work, seconds)


def _diagnosed(shape: ImageShape) -> float:
    """Seconds of the tests of noise against N(0, I)."""
    return min(2**26, shape.rows * shape.values) / DIAGNOSED_PER_SECOND
