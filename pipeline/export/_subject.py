"""The network to export: one network of a recipe with one average of its weights, its artifacts and its scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from pipeline.export._samplers import SamplerSetting, measured_ways
from pipeline.flow_matching.paths import GaussianPath
from pipeline.outputs import networks
from pipeline.outputs.images import IMAGES
from pipeline.outputs.networks import path_of
from pipeline.outputs.results import Score
from pipeline.recipe.sections import Sweep
from storage.artifact import Artifact
from storage.errors import UsageError
from storage.imageset import ImageSet

NO_SWEEP = SamplerSetting("euler", "uniform", 8)  # the default of `flowctl sample`


@dataclass(frozen=True)
class Subject:
    """A finished network.

    Attributes:
        recipe: its name.
        model: "student", "reflow-1" and so on, "onestep" or "teacher".
        average: a further average of the weights, by its name; None for the first.
        artifacts: the recipe's finished artifacts by stage; "data" and `model` among them.
        sweeps: how the recipe samples this model in its evaluation.
    """

    recipe: str
    model: str
    average: str | None
    artifacts: Mapping[str, Artifact]
    sweeps: Sequence[Sweep]

    @property
    def artifact(self) -> Artifact:
        return self.artifacts[self.model]

    @property
    def images(self) -> ImageSet:
        return ImageSet.open(self.artifacts["data"].path(IMAGES))

    @property
    def weights(self) -> str:
        """The file of the weights in the artifact."""
        return networks.weights_file(self.average)

    @property
    def ema(self) -> str:
        """The name of the average in protocols."""
        return networks.average_in_words(self.artifact, self.average)

    @property
    def scores(self) -> list[Score]:
        """The scores of this model with this average; empty where the recipe was not evaluated."""
        if "evaluation" not in self.artifacts:
            return []
        scores = [Score.model_validate(score) for score in self.artifacts["evaluation"].metrics["scores"]]
        return [score for score in scores if score.model == self.model and score.protocol.get("ema") == self.ema]

    @property
    def ways(self) -> list[SamplerSetting]:
        """Sampler settings of a student: those measured, else those of the recipe; empty for a teacher."""
        if self.model == "teacher":
            return []
        planned = [
            SamplerSetting(sweep.solver, sweep.grid, nfe, sweep.guidance, temperature=sweep.temperature)
            for sweep in self.sweeps
            for nfe in sweep.nfe
        ]
        planned = sorted(dict.fromkeys(planned), key=lambda way: way.nfe)
        steps = self.artifact.config.get("steps", 1)  # that it was trained for
        solver = "jump" if self.artifact.config.get("mode") == "meanflow" else "euler"
        only = [SamplerSetting(solver, "uniform", steps)] if self.model == "onestep" else [NO_SWEEP]
        return measured_ways(self.scores) or planned or only

    @property
    def lineage(self) -> dict[str, Artifact]:
        """The artifact and all artifacts it depends on, in the order of the DAG."""
        open_roles, needed = [self.model], set()
        while open_roles:
            role = open_roles.pop()
            if role in self.artifacts and role not in needed:
                needed.add(role)
                open_roles += self.artifacts[role].inputs
        return {role: artifact for role, artifact in self.artifacts.items() if role in needed}

    def network(self, device: torch.device | str = "cpu") -> nn.Module:
        """The network in eval mode.

        Raises:
            MissingError: no such average.
            UsageError: the network needs more than noise and a class.
            DamageError: its files do not fit each other.
        """
        network = networks.load_network(self.artifact, device, self.average)
        if getattr(network.config, "condition_channels", 0) or "source" in self.artifacts:
            raise UsageError(
                "An exported network must need only noise and a class",
                f"{self.model} of {self.recipe}, which needs images",
                "Sample it with flowctl sample.",
            )
        return network

    @property
    def path(self) -> GaussianPath:
        """The path that a student's velocity belongs to."""
        return path_of(self.artifact)
