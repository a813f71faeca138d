"""What is exported: one network of a recipe with one average of its weights, and all that is known about it."""

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
from storage.errors import InputError
from storage.imageset import ImageSet

NO_SWEEP = SamplerSetting("euler", "quadratic", 8)  # as `flowctl sample` does unless told otherwise


@dataclass(frozen=True)
class Subject:
    """A finished network.

    Attributes:
        recipe: its name.
        model: "student", "reflow-1" and so on, "onestep" or "teacher".
        average: a further average of the weights, by its name; None for the first.
        made: the recipe's artifacts that are there, by stage; "data" and `model` among them.
        sweeps: how the recipe samples this model in its evaluation.
    """

    recipe: str
    model: str
    average: str | None
    made: Mapping[str, Artifact]
    sweeps: Sequence[Sweep]

    @property
    def artifact(self) -> Artifact:
        return self.made[self.model]

    @property
    def images(self) -> ImageSet:
        return ImageSet.open(self.made["data"].path(IMAGES))

    @property
    def weights(self) -> str:
        """The file of the weights in the artifact."""
        return networks.WEIGHTS if self.average is None else f"weights-{self.average}.safetensors"

    @property
    def ema(self) -> str:
        """The name of the average in protocols."""
        return self.average or f"half-life-{self.artifact.config['training']['ema']}"

    @property
    def scores(self) -> list[Score]:
        """What was measured of this model with this average; nothing where the recipe was not evaluated."""
        if "evaluation" not in self.made:
            return []
        found = [Score.model_validate(score) for score in self.made["evaluation"].metrics["scores"]]
        return [score for score in found if score.model == self.model and score.protocol.get("ema") == self.ema]

    @property
    def ways(self) -> list[SamplerSetting]:
        """How a student can be sampled: as it was measured, else as the recipe would measure it. None for a teacher."""
        if self.model == "teacher":
            return []
        planned = [
            SamplerSetting(sweep.solver, sweep.grid, nfe, sweep.guidance) for sweep in self.sweeps for nfe in sweep.nfe
        ]
        planned = sorted(dict.fromkeys(planned), key=lambda way: way.nfe)
        steps = self.artifact.config.get("steps", 1)  # that it was trained for
        only = [SamplerSetting("euler", "uniform", steps)] if self.model == "onestep" else [NO_SWEEP]
        return measured_ways(self.scores) or planned or only

    @property
    def lineage(self) -> dict[str, Artifact]:
        """The artifact and all it was made from, in the order of the DAG."""
        wanted, found = [self.model], set()
        while wanted:
            role = wanted.pop()
            if role in self.made and role not in found:
                found.add(role)
                wanted += self.made[role].inputs
        return {role: artifact for role, artifact in self.made.items() if role in found}

    def network(self, device: torch.device | str = "cpu") -> nn.Module:
        """The network in eval mode. Raises InputError for an average that was not kept, or one that wants more than
        noise and a class; DamageError where its files do not fit each other."""
        network = networks.load_network(self.artifact, device, self.average)
        if getattr(network.config, "condition_channels", 0) or "source" in self.made:
            raise InputError(
                "export takes a network that makes images of noise and a class alone",
                f"{self.model} of {self.recipe}, which starts from images or is told some",
                "Sample it with flowctl sample",
            )
        return network

    @property
    def path(self) -> GaussianPath:
        """The path that a student's velocity belongs to."""
        return path_of(self.artifact)
