"""Whether stages fit their images, checked before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.couplings import check_whitening
from pipeline.engine.dag import Node, students_among
from pipeline.outputs.networks import student_architecture, teacher_architecture
from pipeline.recipe import sections as configs
from pipeline.training.estimate import ImageShape
from storage.errors import InputError


def check_fit(node: Node, shape: ImageShape) -> None:
    """Raises InputError where a stage cannot work on images of this shape."""
    match node.config:
        case configs.Teacher() as config:
            teacher_architecture(config, shape)
        case configs.NoiseBank() as config:
            if config.whiten:
                check_whitening(max(1, len(shape.classes)), shape.values)
        case configs.Student() as config:
            student_architecture(config, shape)
            _check_guidance([config.quality.guidance] if config.quality else [], shape)
        case configs.Pairs() as config:
            _check_guidance([config.guidance], shape)
        case configs.Evaluation() as config:
            models = [*students_among(node.inputs), *(["onestep"] if "onestep" in node.inputs else [])]
            _check_guidance([sweep.guidance for model in models for sweep in config.sweeps_of(model)], shape)


def _check_guidance(scales: Sequence[float], shape: ImageShape) -> None:
    if not shape.classes and (guided := [scale for scale in scales if scale != 1]):
        raise InputError("guidance must be 1 on images without classes", guided[0], "Give classes, or leave it at 1")
