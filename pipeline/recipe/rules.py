"""The rules between the sections of a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.recipe import sections as configs

if TYPE_CHECKING:
    from pipeline.recipe.recipe import Recipe

Trained = configs.Teacher | configs.Student | configs.Reflow | configs.OneStep


def check(recipe: Recipe) -> None:
    """Raises ValueError where sections contradict one another: what must hold, and what to change."""
    for rule in (
        _sections_fit,
        _pairs_fit,
        _evaluation_fits,
        _average_velocities_fit,
        _onestep_is_asked_for_what_it_learned,
        _guidance_has_two_sides,
        _image_to_image_fits,
    ):
        rule(recipe)


def _sections_fit(recipe: Recipe) -> None:
    coupling = recipe.student.coupling
    banked = coupling.banked
    if banked and not (recipe.teacher and recipe.bank):
        raise ValueError(f"the coupling {coupling.kind!r} needs a teacher's noise: add the sections teacher and bank")
    if not banked and (recipe.teacher or recipe.bank):
        raise ValueError(
            f"the coupling {coupling.kind!r} does not use a teacher: leave the sections teacher and bank out"
        )
    if bool(recipe.potentials) != (coupling.kind == "semidiscrete"):
        raise ValueError("the coupling 'semidiscrete' and the section potentials go together: give both or neither")
    if bool(recipe.pairs) != bool(recipe.onestep):
        raise ValueError("pairs and onestep go together: give both sections or neither")
    if recipe.student.path.kind in ("vp", "ve") and coupling.kind != "independent":
        raise ValueError(
            f"the path {recipe.student.path.kind!r} must start from noise that is independent of the data: "
            "set student.coupling to independent"
        )
    if (recipe.reflow or recipe.onestep) and recipe.student.path.kind != "linear":
        raise ValueError(
            f"pairs lie on straight lines, so that only a student on the linear path can be trained "
            f"further on them, not one on {recipe.student.path.kind!r}: leave reflow, pairs and onestep "
            "out"
        )
    if recipe.student.path.kind == "vp":
        for sweep in recipe.evaluation.student:
            for nfe in sweep.nfe:
                configs.check_before_end(sweep.solver, sweep.guidance, nfe)
        if quality := recipe.student.quality:
            configs.check_before_end(quality.solver, quality.guidance, quality.nfe)
    if recipe.evaluation.likelihood and (recipe.student.path.kind != "linear" or recipe.data.autoencoder):
        raise ValueError("evaluation.likelihood needs pixels and a student on the linear path: leave it out")
    for stage, section in _trained(recipe).items():
        if section.training.batch % (recipe.compute.world * section.training.accumulate):
            raise ValueError(
                f"{stage}.training.batch ({section.training.batch}) is split over {recipe.compute.world} processes "
                f"and {section.training.accumulate} parts, and must be divisible by their product"
            )


def _pairs_fit(recipe: Recipe) -> None:
    if any(pairs.forward or pairs.intervals != 1 for pairs in _every_pairs(recipe)):
        raise ValueError(
            "pairs.intervals and pairs.forward follow from the students trained on the pairs: leave them out"
        )
    for stage, section in _trained(recipe).items():
        loss: configs.Loss | None = getattr(section, "loss", None)
        if loss is not None and loss.needs_pixels and recipe.data.autoencoder:
            raise ValueError(
                f"{stage}.loss is {loss.kind}, which needs pixels, not latents: choose another loss, "
                "or leave data.autoencoder out"
            )
    steps = recipe.onestep.steps if recipe.onestep else 1
    if steps > 1 and recipe.pairs and recipe.pairs.solver != configs.ADAPTIVE:
        unit = steps * configs.calls_of_a_step(recipe.pairs.solver, recipe.pairs.guidance)
        if recipe.pairs.grid != "uniform" or (recipe.pairs.nfe or 0) % unit:
            raise ValueError(
                f"a student of {steps} steps is trained between {steps + 1} even times, which the "
                f"pairs must contain: set pairs.grid to uniform and pairs.nfe to a multiple of {unit}"
            )


def _evaluation_fits(recipe: Recipe) -> None:
    if "inception-score" in recipe.evaluation.metrics and recipe.reference.extractor == "pixels":
        raise ValueError(
            "the metric inception-score needs a network with classes, and reference.extractor is "
            "pixels: choose another extractor, or leave inception-score out"
        )
    if recipe.evaluation.noise_cost and recipe.student.coupling.kind != "nfm":
        raise ValueError(
            "evaluation.noise_cost compares a teacher's noise with N(0, I), and needs student.coupling: nfm. "
            "Leave it out"
        )
    if recipe.evaluation.noise_cost and not _is_the_whole_bank(recipe.student.coupling):
        raise ValueError(
            "evaluation.noise_cost starts from the teacher's noise, and a student of a softened, mixed or shortened "
            "coupling was trained on another: leave it out, or set soften, independent and drop_longest of "
            "student.coupling to 0"
        )
    if recipe.evaluation.onestep and not recipe.onestep:
        raise ValueError("evaluation.onestep needs a one-step student: add the sections pairs and onestep")
    if recipe.evaluation.reflow and not recipe.reflow:
        raise ValueError("evaluation.reflow needs rounds of reflow: add the section reflow, or leave it out")
    asked = (
        (recipe.evaluation.student, [recipe.student]),
        (recipe.evaluation.reflow, recipe.reflow),
        (recipe.evaluation.onestep, [recipe.onestep] if recipe.onestep else []),
    )
    for sweeps, sections in asked:
        for average in {sweep.ema for sweep in sweeps} - {None}:
            for section in sections:
                names = [ema.name for ema in section.training.averages]
                names += ["best"] if getattr(section, "quality", None) else []
                if average not in names:
                    raise ValueError(
                        f"evaluation asks for the average {average!r}, and the training has "
                        f"{', '.join(names) or 'none by name'}: "
                        + ("add student.quality" if average == "best" else "name it in training.averages")
                    )


def _average_velocities_fit(recipe: Recipe) -> None:
    """Only a student that learned average velocities can jump, and it learned those of the straight path."""
    objective = recipe.student.objective
    meanflow = isinstance(objective, configs.MeanFlow)
    if meanflow and recipe.student.path.kind != "linear":
        raise ValueError(
            f"student.objective meanflow is of the linear path, not of {recipe.student.path.kind!r}: "
            "set student.path to linear"
        )
    first = _pairs_of_the_student(recipe)
    quality = recipe.student.quality
    from_student = [*recipe.evaluation.student, *([first] if first else []), *([quality] if quality else [])]
    others = [*recipe.evaluation.reflow, *_later_pairs(recipe)]
    last = recipe.onestep is not None and recipe.onestep.mode == "meanflow"
    untaught: list[Any] = [*([] if meanflow else from_student), *([] if last else recipe.evaluation.onestep), *others]
    if any(how.solver == "jump" for how in untaught):
        raise ValueError(
            "the solver 'jump' needs average velocities, which only a student with objective meanflow has: "
            "set student.objective or onestep.mode to meanflow, or choose another solver"
        )
    onestep = recipe.onestep if last else None
    if onestep and isinstance(objective, configs.MeanFlow) and onestep.objective.time_scale != objective.time_scale:
        raise ValueError(
            "onestep goes on with the student's embedding of time: set onestep.objective.time_scale to that of "
            f"student.objective, {objective.time_scale:g}, got {onestep.objective.time_scale:g}"
        )
    for number, this in enumerate(recipe.reflow):
        until_here = _every_pairs(recipe)[: number + 1]
        plain = all((pairs.temperature, pairs.guidance) == (1, 1) for pairs in until_here)
        if this.mix.forward and recipe.bank and not (plain and _learns_the_whole_bank(recipe)):
            raise ValueError(
                "mix.forward adds the bank's pairs, whose noise is that of generated pairs only at temperature 1, "
                "guidance 1 (student.objective's too) and with student.coupling nfm, all of it (soften, independent "
                "and drop_longest 0): set "
                f"reflow.{number}.mix.forward to 0, or these"
            )
    if first and first.solver == "jump" and recipe.reflow and recipe.reflow[0].mix.forward and not recipe.bank:
        raise ValueError(
            "mix.forward carries images to their noise, and the solver 'jump' only goes from noise to data: "
            "choose another solver in these pairs, or leave mix.forward out"
        )


def _onestep_is_asked_for_what_it_learned(recipe: Recipe) -> None:
    if recipe.onestep is None or recipe.onestep.mode != "distil":
        return
    steps = recipe.onestep.steps
    for sweep in recipe.evaluation.onestep:
        if (sweep.solver, sweep.nfe) != ("euler", (steps,)) or (steps > 1 and sweep.grid != "uniform"):
            raise ValueError(
                f"a student distilled to {steps} {'step' if steps == 1 else 'steps'} can take "
                f"only {'that' if steps == 1 else 'those'}: set evaluation.onestep to "
                f"[{{solver: euler, grid: uniform, nfe: [{steps}]}}]"
            )


def _guidance_has_two_sides(recipe: Recipe) -> None:
    """Guidance needs a network that was also trained without classes (`student.label_drop`)."""
    first, later = _pairs_of_the_student(recipe), _later_pairs(recipe)
    taught: list[Any] = [*recipe.evaluation.student, *([first] if first else [])]
    taught += [recipe.student.quality] if recipe.student.quality else []
    untaught: list[Any] = [*recipe.evaluation.reflow, *recipe.evaluation.onestep, *later]
    learned = recipe.student.objective.guided
    if learned and any(how.guidance != 1 for how in taught):
        raise ValueError(
            "the student's average velocities are guided already: set the guidance of its samplers to 1, or "
            "student.objective.guidance"
        )
    if any(how.guidance != 1 for how in untaught):
        raise ValueError(
            "students of pairs are trained with the class only, and guidance also needs none: set guidance to 1 "
            "in evaluation.reflow, evaluation.onestep and the pairs after the first round, and guide "
            "the first pairs"
        )
    if recipe.student.label_drop == 0 and (learned or any(how.guidance != 1 for how in taught)):
        raise ValueError(
            "guidance also needs the velocity without a class, which is learned from images whose "
            "label is dropped: set student.label_drop above 0, or guidance to 1"
        )


def _image_to_image_fits(recipe: Recipe) -> None:
    coupling, condition = recipe.student.coupling.kind, recipe.student.condition
    if condition and coupling != "independent":
        raise ValueError(
            f"a condition identifies its image, and given the condition the noise of the coupling "
            f"{coupling!r} is not N(0, I), which samples start from: set student.coupling to "
            "independent"
        )
    if condition and recipe.data.autoencoder:
        raise ValueError(f"the condition {condition.kind!r} needs pixels, not latents: leave data.autoencoder out")
    if condition and (recipe.pairs or recipe.reflow):
        raise ValueError("pairs hold no conditions: leave reflow, pairs and onestep out, or student.condition")
    if recipe.source and coupling not in ("independent", "ot"):
        raise ValueError(
            f"the coupling {coupling!r} needs noise, and a source gives images: set "
            "student.coupling to independent or ot, or leave the section source out"
        )
    if recipe.source and recipe.student.path.kind != "linear":
        raise ValueError(
            f"the path {recipe.student.path.kind!r} starts from noise, and a source gives images: set "
            "student.path to linear, or leave the section source out"
        )
    if recipe.source and (recipe.source.autoencoder or recipe.data.autoencoder):
        raise ValueError("a source is carried to data in pixels: leave autoencoder out of both sections")
    if recipe.source and condition:
        raise ValueError("images come from a source or from a condition: leave source or student.condition out")
    if recipe.evaluation.likelihood and (recipe.source or condition):
        raise ValueError("evaluation.likelihood needs images generated from noise: leave it out")
    sampled: list[Any] = [*recipe.evaluation.student, *recipe.evaluation.reflow, *recipe.evaluation.onestep]
    if recipe.source and any(how.temperature != 1 for how in [*sampled, *_every_pairs(recipe)]):
        raise ValueError("samples of a source start from its images, which have no temperature: leave it out")


def _learns_the_whole_bank(recipe: Recipe) -> bool:
    """Whether the student is trained on the teacher's pairs, each of them and nothing else, and without guidance."""
    return _is_the_whole_bank(recipe.student.coupling) and not recipe.student.objective.guided


def _is_the_whole_bank(coupling: configs.Coupling) -> bool:
    if not isinstance(coupling, configs.NFM):
        return False
    return not (coupling.soften or coupling.independent or coupling.drop_longest)


def _pairs_of_the_student(recipe: Recipe) -> configs.Pairs | None:
    """The first pairs, generated by the student itself."""
    return next(iter(_every_pairs(recipe)), None)


def _every_pairs(recipe: Recipe) -> list[configs.Pairs]:
    return [*(this.pairs for this in recipe.reflow), *([recipe.pairs] if recipe.pairs else [])]


def _later_pairs(recipe: Recipe) -> list[configs.Pairs]:
    """The pairs that students of pairs generate."""
    return _every_pairs(recipe)[1:]


def _trained(recipe: Recipe) -> dict[str, Trained]:
    """The sections of the stages that train a network, by stage."""
    return {stage: section for stage, section in recipe.sections().items() if isinstance(section, Trained)}
