"""Which coupling a student is trained on. A name alone, such as `coupling: ot`, is that kind with its defaults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from pipeline.recipe.fingerprint import AddedLater
from pipeline.recipe.sections._base import Config, Fraction, Positive, Seeded, Share, named

WithinClasses = Annotated[
    bool, AddedLater(True), Field(description="couple within each class; false couples across all classes")
]


class _Coupling(Config):
    @property
    def banked(self) -> bool:
        """Whether it needs a bank of the teacher's noise."""
        return False

    @property
    def calls_teacher(self) -> bool:
        """Whether it runs the teacher at each step."""
        return False

    @property
    def together(self) -> int | None:
        """How many images are coupled together; None for those of a training step."""
        return getattr(self, "batch", None)


class Independent(_Coupling):
    """Fresh noise for each image."""

    kind: Literal["independent"] = "independent"


class MinibatchOT(_Coupling):
    """The exact assignment of fresh noise within a minibatch."""

    kind: Literal["ot"] = "ot"
    batch: Positive | None = Field(None, description="images assigned together; the training batch unless given")
    within_classes: WithinClasses = True


class Entropic(_Coupling):
    """Entropic transport within a minibatch, by Sinkhorn's algorithm."""

    kind: Literal["entropic"] = "entropic"
    batch: Positive | None = Field(None, description="images coupled together; the training batch unless given")
    regularisation: float = Field(0.1, gt=0, description="relative to the spread of costs; 0.01 is almost exact")
    within_classes: WithinClasses = True


class Loom(_Coupling):
    """LOOM-CFM: an assignment of the whole set, refined from minibatch to minibatch."""

    kind: Literal["loom"] = "loom"
    batch: int | None = Field(None, ge=2, description="images that exchange noises; the training batch unless given")
    noises_per_image: Positive = Field(1, description="noises assigned to each image")
    refine: Literal["training", "before", "never"] = Field(
        "training", description="during the training; before it, to convergence; or never"
    )
    epochs: Positive = Field(200, description="largest number of epochs of refinement before training")
    tolerance: float = Field(0.001, gt=0, lt=1, description="share of reassigned images that counts as converged")
    interpolate: Share = Field(1.0, description="probability of an image's own noise; else fresh noise, used once")
    within_classes: WithinClasses = True
    start: Literal["noise", "bank"] = Field("noise", description="start from fresh noise, or from the teacher's bank")

    @model_validator(mode="after")
    def _settings_are_of_this_refinement(self) -> Loom:
        of = {"epochs": ("before",), "tolerance": ("before",), "batch": ("before", "training")}
        for name, kinds in of.items():
            if self.refine not in kinds and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is for refine: {' or '.join(kinds)}, not {self.refine}: leave it out")
        return self

    @model_validator(mode="after")
    def _bank_has_its_draws(self) -> Loom:
        if self.start == "bank" and self.noises_per_image != 1:
            raise ValueError(
                "with start: bank, bank.draws_per_image sets the noises of an image: leave noises_per_image out"
            )
        return self

    @property
    def banked(self) -> bool:
        return self.start == "bank"


class Semidiscrete(_Coupling):
    """Semidiscrete optimal transport: each fresh noise gets the image that the fitted potentials name."""

    kind: Literal["semidiscrete"] = "semidiscrete"


class Potentials(Seeded):
    """The fit of semidiscrete transport's potentials."""

    batch: Positive = Field(512, description="noises in one step of the ascent")
    passes: float = Field(60.0, gt=0, description="largest number of passes, each of as many noises as images")
    tolerance: float = Field(0.05, gt=0, description="stop at this chi^2 of the cells' masses")
    within_classes: WithinClasses = True


class NFM(_Coupling):
    """The teacher's noise of each image: from the bank, or encoded at each step."""

    kind: Literal["nfm"] = "nfm"
    online: bool = Field(False, description="run the teacher at each step; the bank then only measures it")
    independent: Share = Field(0.0, description="share of images with fresh noise instead")
    soften: Annotated[Share, AddedLater(0.0)] = Field(
        0.0, description="s of z' = sqrt(1 - s^2) z + s eps: fresh noise eps blended into each noise"
    )

    drop_longest: Annotated[Fraction, AddedLater(0.0)] = Field(
        0.0, description="share of the bank's pairs to leave out, those of the largest |x - z|"
    )

    @model_validator(mode="after")
    def _pairs_are_measured_first(self) -> NFM:
        if self.online and self.drop_longest:
            raise ValueError("drop_longest measures the bank's pairs, and online draws others: leave one of them out")
        return self

    @property
    def banked(self) -> bool:
        return True

    @property
    def calls_teacher(self) -> bool:
        return self.online


Coupling = Annotated[
    Annotated[NFM | Independent | MinibatchOT | Entropic | Loom | Semidiscrete, Field(discriminator="kind")],
    BeforeValidator(named),
]
