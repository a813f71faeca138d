"""The DAG: which stages a recipe has, what each reads, and the fingerprint that follows.

    data ──► teacher ──► couplings ──► student ──► pairs ──► onestep ──► evaluation ──► report
      ├────► potentials ─────────────────┤                                    │
      │                      source ─────┘  (and to pairs and evaluation)     │
      └────► reference ───────────────────────────────────────────────────────┘

With rounds of reflow, student ──► pairs-1 ──► reflow-1 ──► pairs-2 ──► reflow-2 ──► …, and pairs and onestep go on from
the last student of that chain.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

from pipeline.outputs import results
from pipeline.recipe.fingerprint import fingerprint
from pipeline.recipe.recipe import Recipe
from pipeline.recipe.sections import MOST_ROUNDS, Config, LpipsHuber


@dataclass(frozen=True)
class Stage:
    """A kind of work.

    `version` is raised when its meaning changes; `inputs`, each the name of a stage, are left out where a recipe lacks
    them; `parallel` says whether several processes share it (see `pipeline.runtime.ranks`); `code` is its module in
    pipeline.stages where that has another name.
    """

    name: str
    version: int
    inputs: tuple[str, ...]
    result: type[results.Result]
    parallel: bool = False
    code: str | None = None

    @property
    def kind(self) -> str:
        """What it does: the same for all rounds of one thing."""
        return self.code or self.name

    def module(self) -> ModuleType:
        """The code that runs it, imported only now: planning needs no torch."""
        return importlib.import_module(f"pipeline.stages.{self.kind}")


STAGES = (
    Stage("data", 1, (), results.DataResult),
    Stage("source", 1, (), results.DataResult, code="data"),
    Stage("reference", 3, ("data",), results.ReferenceResult),
    Stage("teacher", 1, ("data",), results.TeacherResult, parallel=True),
    Stage("bank", 1, ("data", "teacher"), results.BankResult, parallel=True),
    Stage("potentials", 1, ("data",), results.PotentialsResult),
    Stage("student", 2, ("data", "source", "teacher", "bank", "potentials"), results.StudentResult, parallel=True),
    Stage("pairs", 1, ("data", "source", "student"), results.PairsResult, parallel=True),
    Stage("onestep", 1, ("data", "student", "pairs"), results.StudentResult, parallel=True),
    Stage(
        "evaluation",
        3,
        ("data", "source", "reference", "teacher", "bank", "student", "onestep"),
        results.EvaluationResult,
        parallel=True,
    ),
    Stage(
        "report",
        1,
        ("data", "source", "reference", "teacher", "bank", "student", "pairs", "onestep", "evaluation"),
        results.ReportResult,
    ),
)
IMAGES = ("data", "source")  # stages that read images from outside the store
_ROUND = re.compile(rf"(pairs|reflow)-([1-{MOST_ROUNDS}])")


def stages(rounds: int = 0) -> tuple[Stage, ...]:
    """All stages, each after its inputs, with so many rounds of reflow."""
    made = [stage for number in range(1, rounds + 1) for stage in _round(number)]
    found: list[Stage] = []
    for stage in STAGES:
        if stage.name in ("pairs", "onestep"):  # of the last student there is
            stage = replace(
                stage, inputs=tuple(_student(rounds) if role == "student" else role for role in stage.inputs)
            )
        elif stage.name in ("evaluation", "report"):
            shown = [other.name for other in made if stage.name == "report" or other.kind == "reflow"]
            before, after = _split(stage.inputs, "student")
            stage = replace(stage, inputs=(*before, *shown, *after))
        found += [stage, *made] if stage.name == "student" else [stage]
    return tuple(found)


def stage_named(name: str) -> Stage | None:
    """The stage of this name, of any round; None where there is none."""
    return next((stage for stage in stages(MOST_ROUNDS) if stage.name == name), None)


def round_of(stage: str) -> tuple[str, int] | None:
    """("pairs", 2) of pairs-2, ("reflow", 2) of reflow-2; None for a stage that belongs to no round."""
    found = _ROUND.fullmatch(stage)
    return (found[1], int(found[2])) if found else None


def students_among(roles: Collection[str]) -> list[str]:
    """The chain of students among these roles: "student", then those of rounds of reflow, first round first."""
    return [role for role in _CHAIN if role in roles]


def student_among(roles: Collection[str]) -> str | None:
    """The role of the student that a stage goes on from, the last of the chain; None where there is none."""
    return next(reversed(students_among(roles)), None)


def _student(rounds: int) -> str:
    """The name of the student after so many rounds."""
    return f"reflow-{rounds}" if rounds else "student"


def _round(number: int) -> tuple[Stage, Stage]:
    before = _student(number - 1)
    pairs = f"pairs-{number}"
    return (
        Stage(pairs, 1, ("data", "source", before), results.PairsResult, parallel=True, code="pairs"),
        Stage(
            f"reflow-{number}", 1, ("data", "bank", before, pairs), results.ReflowResult, parallel=True, code="reflow"
        ),
    )


def _split(roles: tuple[str, ...], role: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The roles up to this one, and those behind it."""
    end = roles.index(role) + 1
    return roles[:end], roles[end:]


NAMES = tuple(stage.name for stage in stages(MOST_ROUNDS))  # all that there can be, in the order of the DAG
_CHAIN = tuple(map(_student, range(MOST_ROUNDS + 1)))


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
    external: str | None = None  # digest of what it reads from outside the store

    @property
    def name(self) -> str:
        return self.stage.name


def build(recipe: Recipe, cache: Path | None = None) -> dict[str, Node]:
    """The recipe's nodes by stage, each after its inputs. `cache` holds digests of files outside the store."""
    nodes: dict[str, Node] = {}
    for stage in stages(len(recipe.reflow)):
        config = NoConfig() if stage.name == "report" else recipe.section(stage.name)
        if config is None:
            continue
        inputs = {role: nodes[role] for role in stage.inputs if role in nodes and _reads(stage, role, recipe)}
        external = external_digest(stage, config, cache)
        identity = fingerprint(
            stage.name, stage.version, config, {r: n.fingerprint for r, n in inputs.items()}, external
        )
        label = recipe.name
        if stage.name in ("data", "reference", "potentials", "source"):  # shared by all recipes on these images
            label = (recipe.source if stage.name == "source" else recipe.data).source
        nodes[stage.name] = Node(stage, config, inputs, identity, label, external)
    return nodes


def external_digest(stage: Stage, config: Config, cache: Path | None) -> str | None:
    """The digest of what a stage reads from outside the store, if it does."""
    from pipeline.data.sources import source_digest
    from pipeline.data.sources.digest import files_digest

    if stage.name in IMAGES:
        return source_digest(config, cache)
    loss = getattr(config, "loss", None)
    if isinstance(loss, LpipsHuber):
        return files_digest({"features": loss.features, "linear": loss.linear}, cache)
    return None


def _reads(stage: Stage, role: str, recipe: Recipe) -> bool:
    """A student meets the teacher only where it asks it at each step, else it has its noises from the bank; a round of
    reflow meets the bank only where it mixes its pairs in, an evaluation only for `noise_cost`."""
    if (stage.name, role) == ("student", "teacher"):
        return getattr(recipe.student.coupling, "online", False)
    if (stage.name, role) == ("evaluation", "bank"):
        return recipe.evaluation.noise_cost
    if (stage.kind, role) == ("reflow", "bank"):
        return recipe.section(stage.name).mix.forward > 0
    return True
