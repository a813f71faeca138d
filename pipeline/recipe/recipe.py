"""A recipe: the settings of all stages in one frozen model."""

from __future__ import annotations

from pydantic import Field, model_validator

from pipeline.recipe import rules
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
        rules.check(self)
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
