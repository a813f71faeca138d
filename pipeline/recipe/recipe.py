"""A recipe: the settings of all stages in one frozen model, and the rules between its sections."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from pipeline.recipe import sections as configs
from pipeline.recipe.sections import Config, Name

_BEFORE = ("data", "source", "reference", "teacher", "bank", "potentials", "student")  # the stages before reflow
ROUNDS = tuple((f"pairs-{number}", f"reflow-{number}") for number in range(1, configs.MOST_ROUNDS + 1))
# Every stage that a recipe can have, in the order of the DAG, and its kind, which all rounds share.
KINDS: dict[str, str] = {
    **dict(zip(_BEFORE, _BEFORE, strict=True)),
    **{name: kind for names in ROUNDS for name, kind in zip(names, ("pairs", "reflow"), strict=True)},
    **{name: name for name in ("pairs", "onestep", "evaluation", "report")},
}
PAIRS_OF = {reflow: pairs for pairs, reflow in ROUNDS} | {"onestep": "pairs"}  # what a student of pairs is trained on
Trained = configs.Teacher | configs.Student | configs.Reflow | configs.OneStep


class Recipe(Config):
    """All stages' settings. Sections that a coupling does not need are left out."""

    name: Name = Field(description="of the run and its artifacts; a file's own name where it gives none")
    description: str = Field("", description="one line for lists")
    seed: int = Field(0, ge=0, lt=2**32, description="of all stages without a seed field; data and reference have one")
    data: configs.Data
    source: configs.Data | None = Field(None, description="a second image set, in the place of noise")
    reference: configs.Reference = configs.Reference()
    teacher: configs.Teacher | None = None
    bank: configs.NoiseBank | None = None
    potentials: configs.Potentials | None = None
    student: configs.Student
    reflow: tuple[configs.Round, ...] = Field((), max_length=configs.MOST_ROUNDS, description="rounds, in their order")
    pairs: configs.Pairs | None = None
    onestep: configs.OneStep | None = None
    evaluation: configs.Evaluation
    compute: configs.Compute = configs.Compute()

    @model_validator(mode="after")
    def _sections_fit(self) -> Recipe:
        coupling = self.student.coupling
        banked = coupling.banked
        if banked and not (self.teacher and self.bank):
            raise ValueError(
                f"the coupling {coupling.kind!r} needs a teacher's noise: add the sections teacher and bank"
            )
        if not banked and (self.teacher or self.bank):
            raise ValueError(
                f"the coupling {coupling.kind!r} does not use a teacher: leave the sections teacher and bank out"
            )
        if bool(self.potentials) != (coupling.kind == "semidiscrete"):
            raise ValueError("the coupling 'semidiscrete' and the section potentials go together: give both or neither")
        if bool(self.pairs) != bool(self.onestep):
            raise ValueError("pairs and onestep go together: give both sections or neither")
        if self.student.path.kind in ("vp", "ve") and coupling.kind != "independent":
            raise ValueError(
                f"the path {self.student.path.kind!r} must start from noise that is independent of the data: "
                "set student.coupling to independent"
            )
        if (self.reflow or self.onestep) and self.student.path.kind != "linear":
            raise ValueError(
                f"pairs lie on straight lines, so that only a student on the linear path can be trained "
                f"further on them, not one on {self.student.path.kind!r}: leave reflow, pairs and onestep "
                "out"
            )
        if self.student.path.kind == "vp":
            for sweep in self.evaluation.student:
                for nfe in sweep.nfe:
                    configs.check_before_end(sweep.solver, sweep.guidance, nfe)
            if quality := self.student.quality:
                configs.check_before_end(quality.solver, quality.guidance, quality.nfe)
        if self.evaluation.likelihood and (self.student.path.kind != "linear" or self.data.autoencoder):
            raise ValueError("evaluation.likelihood needs pixels and a student on the linear path: leave it out")
        for stage, section in self._trained().items():
            if section.training.batch % (self.compute.world * section.training.accumulate):
                raise ValueError(
                    f"{stage}.training.batch ({section.training.batch}) is split over {self.compute.world} processes "
                    f"and {section.training.accumulate} parts, and must be divisible by their product"
                )
        return self

    @model_validator(mode="after")
    def _pairs_fit(self) -> Recipe:
        if any(pairs.forward or pairs.intervals != 1 for pairs in self._every_pairs()):
            raise ValueError(
                "pairs.intervals and pairs.forward follow from the students trained on the pairs: leave them out"
            )
        for stage, section in self._trained().items():
            if isinstance(getattr(section, "loss", None), configs.LpipsHuber) and self.data.autoencoder:
                raise ValueError(
                    f"{stage}.loss is LPIPS, which needs pixels, not latents: choose another loss, "
                    "or leave data.autoencoder out"
                )
        steps = self.onestep.steps if self.onestep else 1
        if steps > 1 and self.pairs and self.pairs.solver != "dopri5":
            unit = steps * configs.calls_of_a_step(self.pairs.solver, self.pairs.guidance)
            if self.pairs.grid != "uniform" or (self.pairs.nfe or 0) % unit:
                raise ValueError(
                    f"a student of {steps} steps is trained between {steps + 1} even times, which the "
                    f"pairs must contain: set pairs.grid to uniform and pairs.nfe to a multiple of {unit}"
                )
        return self

    @model_validator(mode="after")
    def _evaluation_fits(self) -> Recipe:
        if "inception-score" in self.evaluation.metrics and self.reference.extractor == "pixels":
            raise ValueError(
                "the metric inception-score needs a network with classes, and reference.extractor is "
                "pixels: choose another extractor, or leave inception-score out"
            )
        if self.evaluation.noise_cost and self.student.coupling.kind != "nfm":
            raise ValueError(
                "evaluation.noise_cost compares a teacher's noise with N(0, I), and needs student.coupling: nfm. "
                "Leave it out"
            )
        coupling = self.student.coupling
        if (
            self.evaluation.noise_cost
            and isinstance(coupling, configs.NFM)
            and (coupling.soften or coupling.independent)
        ):
            raise ValueError(
                "evaluation.noise_cost starts from the teacher's noise, and a student of a softened or mixed coupling "
                "was trained on another: leave it out, or set soften and independent of student.coupling to 0"
            )
        if self.evaluation.onestep and not self.onestep:
            raise ValueError("evaluation.onestep needs a one-step student: add the sections pairs and onestep")
        if self.evaluation.reflow and not self.reflow:
            raise ValueError("evaluation.reflow needs rounds of reflow: add the section reflow, or leave it out")
        asked = (
            (self.evaluation.student, [self.student]),
            (self.evaluation.reflow, self.reflow),
            (self.evaluation.onestep, [self.onestep] if self.onestep else []),
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
        return self

    @model_validator(mode="after")
    def _average_velocities_fit(self) -> Recipe:
        """Only a student that learned average velocities can jump, and it learned those of the straight path."""
        objective = self.student.objective
        meanflow = isinstance(objective, configs.MeanFlow)
        if meanflow and self.student.path.kind != "linear":
            raise ValueError(
                f"student.objective meanflow is of the linear path, not of {self.student.path.kind!r}: "
                "set student.path to linear"
            )
        first = self._pairs_of_the_student()
        quality = self.student.quality
        from_student = [*self.evaluation.student, *([first] if first else []), *([quality] if quality else [])]
        others = [*self.evaluation.reflow, *self._later_pairs()]
        last = self.onestep is not None and self.onestep.mode == "meanflow"
        untaught: list[Any] = [*([] if meanflow else from_student), *([] if last else self.evaluation.onestep), *others]
        if any(how.solver == "jump" for how in untaught):
            raise ValueError(
                "the solver 'jump' needs average velocities, which only a student with objective meanflow has: "
                "set student.objective or onestep.mode to meanflow, or choose another solver"
            )
        onestep = self.onestep if last else None
        if onestep and isinstance(objective, configs.MeanFlow) and onestep.objective.time_scale != objective.time_scale:
            raise ValueError(
                "onestep goes on with the student's embedding of time: set onestep.objective.time_scale to that of "
                f"student.objective, {objective.time_scale:g}, got {onestep.objective.time_scale:g}"
            )
        for number, this in enumerate(self.reflow):
            until_here = self._every_pairs()[: number + 1]
            plain = all((pairs.temperature, pairs.guidance) == (1, 1) for pairs in until_here)
            if this.mix.forward and self.bank and not (plain and self._learns_the_whole_bank()):
                raise ValueError(
                    "mix.forward adds the bank's pairs, whose noise is that of generated pairs only at temperature 1, "
                    "guidance 1 and with student.coupling nfm, all of it (soften, independent and drop_longest 0): set "
                    f"reflow.{number}.mix.forward to 0, or these"
                )
        if first and first.solver == "jump" and self.reflow and self.reflow[0].mix.forward and not self.bank:
            raise ValueError(
                "mix.forward carries images to their noise, and the solver 'jump' only goes from noise to data: "
                "choose another solver in these pairs, or leave mix.forward out"
            )
        return self

    def _learns_the_whole_bank(self) -> bool:
        """Whether the student is trained on the teacher's pairs, each of them and nothing else."""
        coupling = self.student.coupling
        return isinstance(coupling, configs.NFM) and not (
            coupling.soften or coupling.independent or coupling.drop_longest
        )

    def _pairs_of_the_student(self) -> configs.Pairs | None:
        """The first pairs, generated by the student itself."""
        return next(iter(self._every_pairs()), None)

    def _every_pairs(self) -> list[configs.Pairs]:
        return [*(this.pairs for this in self.reflow), *([self.pairs] if self.pairs else [])]

    def _later_pairs(self) -> list[configs.Pairs]:
        """The pairs that students of pairs generate."""
        return self._every_pairs()[1:]

    @model_validator(mode="after")
    def _onestep_is_asked_for_what_it_learned(self) -> Recipe:
        if self.onestep is None or self.onestep.mode != "distil":
            return self
        steps = self.onestep.steps
        for sweep in self.evaluation.onestep:
            if (sweep.solver, sweep.nfe) != ("euler", (steps,)) or (steps > 1 and sweep.grid != "uniform"):
                raise ValueError(
                    f"a student distilled to {steps} {'step' if steps == 1 else 'steps'} can take "
                    f"only {'that' if steps == 1 else 'those'}: set evaluation.onestep to "
                    f"[{{solver: euler, grid: uniform, nfe: [{steps}]}}]"
                )
        return self

    @model_validator(mode="after")
    def _guidance_has_two_sides(self) -> Recipe:
        """Guidance needs a network that was also trained without classes (`student.label_drop`)."""
        first, later = self._pairs_of_the_student(), self._later_pairs()
        taught: list[Any] = [*self.evaluation.student, *([first] if first else [])]
        taught += [self.student.quality] if self.student.quality else []
        untaught: list[Any] = [*self.evaluation.reflow, *self.evaluation.onestep, *later]
        objective = self.student.objective
        learned = isinstance(objective, configs.MeanFlow) and objective.guidance != 1
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
        if self.student.label_drop == 0 and (learned or any(how.guidance != 1 for how in taught)):
            raise ValueError(
                "guidance also needs the velocity without a class, which is learned from images whose "
                "label is dropped: set student.label_drop above 0, or guidance to 1"
            )
        return self

    @model_validator(mode="after")
    def _image_to_image_fits(self) -> Recipe:
        coupling, condition = self.student.coupling.kind, self.student.condition
        if condition and coupling != "independent":
            raise ValueError(
                f"a condition identifies its image, and given the condition the noise of the coupling "
                f"{coupling!r} is not N(0, I), which samples start from: set student.coupling to "
                "independent"
            )
        if condition and self.data.autoencoder:
            raise ValueError(f"the condition {condition.kind!r} needs pixels, not latents: leave data.autoencoder out")
        if condition and (self.pairs or self.reflow):
            raise ValueError("pairs hold no conditions: leave reflow, pairs and onestep out, or student.condition")
        if self.source and coupling not in ("independent", "ot"):
            raise ValueError(
                f"the coupling {coupling!r} needs noise, and a source gives images: set "
                "student.coupling to independent or ot, or leave the section source out"
            )
        if self.source and self.student.path.kind != "linear":
            raise ValueError(
                f"the path {self.student.path.kind!r} starts from noise, and a source gives images: set "
                "student.path to linear, or leave the section source out"
            )
        if self.source and (self.source.autoencoder or self.data.autoencoder):
            raise ValueError("a source is carried to data in pixels: leave autoencoder out of both sections")
        if self.source and condition:
            raise ValueError("images come from a source or from a condition: leave source or student.condition out")
        if self.evaluation.likelihood and (self.source or condition):
            raise ValueError("evaluation.likelihood needs images generated from noise: leave it out")
        sampled: list[Any] = [*self.evaluation.student, *self.evaluation.reflow, *self.evaluation.onestep]
        if self.source and any(how.temperature != 1 for how in [*sampled, *self._every_pairs()]):
            raise ValueError("samples of a source start from its images, which have no temperature: leave it out")
        return self

    def sections(self) -> dict[str, Config]:
        """The settings of each stage of this recipe, by stage name, in the order of the DAG, seeds filled in.

        Round N of reflow has the stages pairs-N and reflow-N.
        """
        rounds: dict[str, Config] = {}  # pairs also have settings that follow from the students trained on them
        for (pairs, reflow), this in zip(ROUNDS, self.reflow, strict=False):
            rounds[pairs] = this.pairs.model_copy(update={"forward": bool(this.mix.forward and not self.bank)})
            rounds[reflow] = this.student
        steps = self.onestep.steps if self.onestep else 1
        sections = {
            **{name: getattr(self, name) for name in _BEFORE},
            **rounds,
            "pairs": self.pairs and self.pairs.model_copy(update={"intervals": steps}),
            "onestep": self.onestep,
            "evaluation": self.evaluation,
            "report": Config(),
        }
        return {stage: self._seeded(section) for stage, section in sections.items() if section is not None}

    def _seeded(self, section: Config) -> Config:
        if isinstance(section, configs.Seeded) and section.seed is None:
            return section.model_copy(update={"seed": self.seed})
        return section

    def _trained(self) -> dict[str, Trained]:
        """The sections of the stages that train a network, by stage."""
        return {stage: section for stage, section in self.sections().items() if isinstance(section, Trained)}
