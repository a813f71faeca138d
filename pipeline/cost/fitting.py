"""Whether stages fit their images, checked before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.cost.image_shape import ImageShape, real_images
from pipeline.couplings import check_whitening
from pipeline.engine.dag import Node, sampled_among
from pipeline.outputs.networks import student_architecture, teacher_architecture
from pipeline.recipe import sections as configs
from storage.errors import InputError, RecipeError


def check_fit(node: Node, shape: ImageShape) -> None:
    """Raises InputError where a stage cannot work on images of this shape."""
    match node.config:
        case configs.Reference():
            rows = real_images(node, shape).rows
            if rows < 4 or shape.test < 2:  # the training images are halved, a covariance has two
                value = f"{rows} and {shape.test}"
                remedy = "Add images, or change data.test_fraction or data.limit"
                raise InputError("There must be at least 4 training images and 2 test images", value, remedy)
        case configs.Teacher() as config:
            teacher_architecture(config, shape)
            _check_teacher_guidance(config, shape)
        case configs.NoiseBank() as config:
            if config.whiten:
                check_whitening(max(1, len(shape.classes)), shape.values)
        case configs.Student() as config:
            student_architecture(config, shape)
            if config.condition and shape.size % config.condition.factor:
                need = f"student.condition.factor must divide the side of images of {shape.size}x{shape.size}"
                raise RecipeError(need, config.condition.factor, "Choose a divisor")
            learned = [config.objective.guidance] if isinstance(config.objective, configs.MeanFlow) else []
            _check_guidance([*learned, *([config.quality.guidance] if config.quality else [])], shape)
        case configs.Pairs() as config:
            _check_guidance([config.guidance], shape)
        case configs.Evaluation() as config:
            sweeps = [sweep for model in sampled_among(node.inputs) for sweep in config.sweeps_of(model)]
            _check_guidance([sweep.guidance for sweep in sweeps], shape)
            _check_metrics(config, real_images(node, shape).rows)
            if config.noise_cost and shape.test < 4:
                need = "evaluation.noise_cost needs 4 test images: two are encoded, and two compared with"
                raise RecipeError(need, shape.test, "Give more, or leave it out")


def _check_guidance(scales: Sequence[float], shape: ImageShape) -> None:
    if not shape.classes and (guided := [scale for scale in scales if scale != 1]):
        raise RecipeError("guidance must be 1 on images without classes", guided[0], "Give classes, or leave it at 1")


def _check_teacher_guidance(config: configs.Teacher, shape: ImageShape) -> None:
    if not config.guidance:
        return
    if shape.classes and config.label_drop == 0:
        need = "teacher.guidance needs a teacher that was also trained without classes"
        raise RecipeError(need, "teacher.label_drop of 0", "Set it above 0, or guidance to 0")
    if not shape.classes and config.attention_temperature == 1:
        need = "teacher.guidance must be 0 on images without classes, or have an attention_temperature"
        raise RecipeError(need, config.guidance, "Give classes, or leave it at 0")


def _check_metrics(config: configs.Evaluation, rows: int) -> None:
    """Two halves of the training images are the yardstick of a metric."""
    for name in config.metrics:
        if rows < (least := 2 * configs.FEWEST[name]):
            remedy = "Give more, or leave it out of evaluation.metrics"
            raise RecipeError(f"{name} needs {least} training images, two halves of {least // 2}", rows, remedy)
