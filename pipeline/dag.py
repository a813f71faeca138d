"""The DAG: which stages a recipe has, what each reads, and the fingerprint that follows.

    data ──► teacher ──► couplings ──► student ──► pairs ──► onestep ──► evaluation ──► report
      ├────► potentials ─────────────────┤                                    │
      │                      source ─────┘  (and to pairs and evaluation)     │
      └────► reference ───────────────────────────────────────────────────────┘
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from pipeline import results
from pipeline.configs import Config
from pipeline.fingerprint import fingerprint
from pipeline.recipe import Recipe


@dataclass(frozen=True)
class Stage:
    """A kind of work.

    `version` is raised when its meaning changes; `inputs` are left out where a recipe lacks them; `parallel` says
    whether several processes share it (see `pipeline.ranks`).
    """

    name: str
    version: int
    inputs: tuple[str, ...]
    result: type[results.Result]
    parallel: bool = False

    def module(self) -> ModuleType:
        """The code that runs it, imported only now: planning needs no torch."""
        return importlib.import_module(f"pipeline.stages.{self.name}")


STAGES = (
    Stage("data", 1, (), results.DataResult),
    Stage("source", 1, (), results.DataResult),
    Stage("reference", 2, ("data",), results.ReferenceResult),
    Stage("teacher", 1, ("data",), results.TeacherResult, parallel=True),
    Stage("couplings", 1, ("data", "teacher"), results.CouplingsResult, parallel=True),
    Stage("potentials", 1, ("data",), results.PotentialsResult),
    Stage("student", 2, ("data", "source", "teacher", "couplings", "potentials"), results.StudentResult, parallel=True),
    Stage("pairs", 1, ("data", "source", "student"), results.PairsResult, parallel=True),
    Stage("onestep", 1, ("data", "student", "pairs"), results.StudentResult, parallel=True),
    Stage("evaluation", 1, ("data", "source", "reference", "teacher", "student", "onestep"), results.EvaluationResult,
          parallel=True),
    Stage("report", 1, ("data", "source", "reference", "teacher", "couplings", "student", "pairs", "onestep",
                        "evaluation"), results.ReportResult),
)
NAMES = tuple(stage.name for stage in STAGES)
IMAGES = ("data", "source")  # stages that read images from outside the store


class NoConfig(Config):
    """The report has nothing to set."""


@dataclass(frozen=True)
class Node:
    """One stage of one recipe: its settings, the nodes it reads, and the identity of its result."""

    stage: Stage
    config: Config
    inputs: Mapping[str, Node] = field(repr=False)
    fingerprint: str
    label: str

    @property
    def name(self) -> str:
        return self.stage.name


def build(recipe: Recipe, cache: Path | None = None) -> dict[str, Node]:
    """The recipe's nodes by stage, each after its inputs. `cache` holds digests of files outside the store."""
    from pipeline.data import source_digest

    nodes: dict[str, Node] = {}
    for stage in STAGES:
        config = NoConfig() if stage.name == "report" else recipe.section(stage.name)
        if config is None:
            continue
        inputs = {role: nodes[role] for role in stage.inputs if role in nodes and _reads(stage, role, recipe)}
        external = source_digest(config, cache) if stage.name in IMAGES else None
        identity = fingerprint(stage.name, stage.version, config, {r: n.fingerprint for r, n in inputs.items()},
                               external)
        label = recipe.name
        if stage.name in ("data", "reference", "potentials", "source"):  # shared by all recipes on these images
            label = (recipe.source if stage.name == "source" else recipe.data).source
        nodes[stage.name] = Node(stage, config, inputs, identity, label)
    return nodes


def _reads(stage: Stage, role: str, recipe: Recipe) -> bool:
    """A student meets the teacher only where it asks it at each step; else it has its noises from the bank."""
    online = getattr(recipe.student.coupling, "online", False)
    return online or (stage.name, role) != ("student", "teacher")
