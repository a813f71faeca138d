"""A recipe: what to make, in one frozen model, and the rules between its sections."""

from __future__ import annotations

from pydantic import Field, model_validator

from pipeline import configs
from pipeline.configs import Config, Name


class Recipe(Config):
    """All stages' settings. Sections that a coupling does not need are left out."""

    name: Name
    description: str = Field("", description="one line for lists")
    seed: int = Field(0, ge=0, lt=2**32)
    data: configs.Data
    reference: configs.Reference = configs.Reference()
    teacher: configs.Teacher | None = None
    couplings: configs.Couplings | None = None
    student: configs.Student
    pairs: configs.Pairs | None = None
    onestep: configs.OneStep | None = None
    evaluation: configs.Evaluation
    compute: configs.Compute = configs.Compute()

    @model_validator(mode="after")
    def _sections_fit(self) -> Recipe:
        banked = self.student.coupling == "nfm"
        if banked and not (self.teacher and self.couplings):
            raise ValueError("the coupling 'nfm' is made by a teacher: add the sections teacher and couplings")
        if not banked and (self.teacher or self.couplings):
            raise ValueError(f"the coupling {self.student.coupling!r} has no use for a teacher: "
                             "leave the sections teacher and couplings out")
        if banked and self.teacher.dequantisation != "gaussian":
            raise ValueError("couplings need a teacher of Gaussian noise: set teacher.dequantisation to gaussian")
        if bool(self.pairs) != bool(self.onestep):
            raise ValueError("pairs and onestep go together: give both sections or neither")
        if self.evaluation.onestep and not self.onestep:
            raise ValueError("evaluation.onestep needs a one-step student: add the sections pairs and onestep")
        return self

    def section(self, stage: str) -> Config | None:
        """The settings of a stage, its seed filled in. None where the recipe has no such stage."""
        config = getattr(self, stage)
        if isinstance(config, configs.Seeded) and config.seed is None:
            return config.model_copy(update={"seed": self.seed})
        return config
