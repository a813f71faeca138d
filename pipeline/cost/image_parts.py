"""The parts of stages that judge images: the reference and the evaluation; and the way into latents and back."""

from __future__ import annotations

from functools import partial
from typing import Literal

from pipeline.cost.autoencoder_work import coding_work, network_name
from pipeline.cost.estimate import first_student, teacher_of
from pipeline.cost.image_shape import ImageShape, data_of, real_images
from pipeline.cost.part import Part, network_digest
from pipeline.cost.work import extractor_training, extractor_work, forward_work, network_calls
from pipeline.engine.dag import Node, sampled_among
from pipeline.outputs.networks import student_architecture, teacher_architecture
from pipeline.recipe import sections as configs
from pipeline.recipe.sections import Compute

DECODING = 4.0  # forward passes of a TarFlow that decoding one image takes, by a calibrated schedule and denoised


def reference(config: configs.Reference, shape: ImageShape) -> list[Part]:
    """Of the reference of images of this shape, which is that of pixels."""
    facts = {"extractor": config.extractor, "channels": shape.channels, "size": shape.size}
    training = {"rows": shape.rows, "classes": len(shape.classes)}
    return [
        Part(
            "extractor",
            1,
            "networks",
            {"work": "extractor", **facts, **training},
            partial(extractor_training, config, shape),
        ),
        Part(
            "features",
            shape.rows + shape.test,
            "images",
            {"work": "real features", **facts},
            partial(extractor_work, config.extractor, shape),
        ),
    ]


def evaluation(node: Node, config: configs.Evaluation, shape: ImageShape, compute: Compute) -> list[Part]:
    """Samples of every model, into pixels where they are latents, and their features. `shape` is what networks see."""
    batch, own, images = compute.inference_batch, [], 0
    if config.teacher and "teacher" in node.inputs:
        own.append(_decoded(teacher_of(node), config.samples, shape, batch))
        images += config.samples
    for model in sampled_among(node.inputs):
        calls = network_calls(config.sweeps_of(model))
        samples = [config.samples] * len(calls)
        if model == "student" and config.noise_cost:  # once more from either start
            again = calls + network_calls(config.from_encoded)
            samples += [config.of_noise(shape.test)] * len(again)
            calls = calls + again
        images += sum(samples)
        network = student_architecture(first_student(node.inputs[model]), shape)
        facts = {"work": "sampling", "network": network_digest(network), "batch": batch}
        own.append(
            Part(
                f"sampling {model}",
                sum(count * each for count, each in zip(samples, calls, strict=True)),
                "network calls",
                facts,
                partial(forward_work, network, batch),
            )
        )
    judge, seen = node.inputs["reference"].config, real_images(node, shape)
    assert isinstance(judge, configs.Reference)
    facts = {
        "work": "features",
        "extractor": judge.extractor,
        "channels": seen.channels,
        "size": seen.size,
        "batch": batch,
        "metrics": list(config.metrics),
    }
    work = partial(extractor_work, judge.extractor, seen)
    own.append(Part("features", images, "images", facts, work))
    return own + coding(node, "decoding", "decode", images, shape)


def coding(node: Node, name: str, way: Literal["encode", "decode"], amount: int, shape: ImageShape) -> list[Part]:
    """Images into latents or back, where the data has an autoencoder."""
    data = data_of(node)
    if shape.pixels is None or data.autoencoder is None:
        return []
    folder, size = data.autoencoder, shape.pixels[1]
    facts = {"work": name, "network": network_name(folder), "size": size}
    return [Part(name, amount, "images", facts, partial(coding_work, folder, size, way))]


def _decoded(config: configs.Teacher, samples: int, shape: ImageShape, batch: int) -> Part:
    network = teacher_architecture(config, shape)
    asked = {name: getattr(config, name) for name in ("decoding", "denoise", "noise_std")}
    facts = {"work": "decoding", "network": network_digest(network), "batch": batch, **asked}
    facts["guided"] = bool(config.guidance)
    passes = DECODING * (2 if config.guidance else 1)
    return Part("sampling teacher", samples, "images", facts, lambda: forward_work(network, batch) * passes)
