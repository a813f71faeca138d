"""The DAG: the stages of a recipe, the inputs of each, and its fingerprint.

    data ──► teacher ──► bank ──► student ──► pairs ──► onestep ──► evaluation ──► report
      ├────► potentials ────────────┤                                    │
      │                 source ─────┘  (and to pairs and evaluation)     │
      └────► reference ──────────────────────────────────────────────────┘

With rounds of reflow, student ──► pairs-1 ──► reflow-1 ──► pairs-2 ──► reflow-2 ──► …; then pairs and onestep start
from the last student of that chain.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

from pipeline.outputs import results
from pipeline.recipe.fingerprint import fingerprint
from pipeline.recipe.recipe import KINDS, Recipe
from pipeline.recipe.sections import Config, Data, Evaluation, Loss, Pairs, Reflow, Student
from pipeline.recipe.sweep import label_of
from storage.required import required


@dataclass(frozen=True)
class Stage:
    """One step of the DAG.

    `version` is raised when its meaning changes, for some settings by `_version`. `inputs` names the kinds of stages
    that it reads, as far as a recipe has them; with `newest`, only the last student and the last pairs before it.
    `parallel` says whether several processes can share it (see `pipeline.runtime.ranks`), `alone` that it computes on
    the device in one; `shared` that its artifacts are named by the data set, as all recipes on it have the same; `code`
    is its module in pipeline.stages if that has another name.
    """

    name: str
    version: int
    inputs: tuple[str, ...]
    result: type[results.Result]
    parallel: bool = False
    alone: bool = False
    newest: bool = False
    shared: bool = False
    code: str | None = None

    @property
    def kind(self) -> str:
        """The name that all rounds of this stage share."""
        return KINDS[self.name]

    def module(self) -> ModuleType:
        """The module that runs it, imported on demand: planning needs no torch."""
        return importlib.import_module(f"pipeline.stages.{self.code or self.kind}")


CHAIN = ("student", "reflow")  # kinds whose artifact is a student
STAGES = {
    stage.name: stage
    for stage in (
        Stage("data", 1, (), results.DataResult, shared=True),
        Stage("source", 1, (), results.DataResult, shared=True, code="data"),
        Stage("reference", 3, ("data",), results.ReferenceResult, alone=True, shared=True),
        Stage("teacher", 1, ("data",), results.TeacherResult, parallel=True),
        Stage("bank", 1, ("data", "teacher"), results.BankResult, parallel=True),
        Stage("potentials", 1, ("data",), results.PotentialsResult, alone=True, shared=True),
        Stage(
            "student",
            2,
            ("data", "source", "reference", "teacher", "bank", "potentials"),
            results.StudentResult,
            parallel=True,
        ),
        Stage("pairs", 1, ("data", "source", *CHAIN), results.PairsResult, parallel=True, newest=True),
        Stage("reflow", 1, ("data", "bank", *CHAIN, "pairs"), results.ReflowResult, parallel=True, newest=True),
        Stage("onestep", 1, ("data", *CHAIN, "pairs"), results.StudentResult, parallel=True, newest=True),
        Stage(
            "evaluation",
            5,
            ("data", "source", "reference", "teacher", "bank", *CHAIN, "onestep"),
            results.EvaluationResult,
            parallel=True,
        ),
        Stage(
            "report",
            1,
            ("data", "source", "reference", "teacher", "bank", "potentials", *CHAIN, "pairs", "onestep", "evaluation"),
            results.ReportResult,
        ),
    )
}
IMAGES = ("data", "source")  # stages that read images from outside the store
NAMES = tuple(KINDS)  # all stages that a recipe can have, in the order of the DAG


def stage_named(name: str) -> Stage:
    """The stage of this name, of any round. Raises KeyError if there is none."""
    return replace(STAGES[KINDS[name]], name=name)


def of_kind(names: Collection[str], *kinds: str) -> list[str]:
    """The stages of these kinds among `names`, in the order of the DAG."""
    return [name for name in NAMES if name in names and KINDS[name] in kinds]


def sampled_among(names: Collection[str]) -> list[str]:
    """The stages whose networks an evaluation samples by a solver: the students in order, the one-step student last."""
    return [*students_among(names), *(["onestep"] if "onestep" in names else [])]


def students_among(names: Collection[str]) -> list[str]:
    """The chain of students among these stages: "student", then one for each round of reflow."""
    return of_kind(names, *CHAIN)


def last_student(names: Collection[str]) -> str:
    """The last student of the chain, from which a stage starts. Raises LookupError if there is none."""
    return students_among(names)[-1]


@dataclass(frozen=True)
class Node:
    """One stage of one recipe: its settings, the nodes it reads, and the fingerprint of its result."""

    stage: Stage
    config: Config
    inputs: Mapping[str, Node] = field(repr=False)
    fingerprint: str
    label: str
    external: str | None = None  # digest of the files that it reads from outside the store

    @property
    def name(self) -> str:
        return self.stage.name


Recorded = Callable[[str, Config], str | None]


def build(recipe: Recipe, cache: Path | None = None, recorded: Recorded | None = None) -> dict[str, Node]:
    """The recipe's nodes by stage, each after its inputs. `cache` holds digests of files outside the store.

    With `recorded`, the digest that it returns for a stage and its settings is taken, so that finished results are
    found without their sources; only where it returns None are the sources read.
    """
    nodes: dict[str, Node] = {}
    ancestors: dict[str, set[str]] = {}  # of a stage, itself included
    for name, config in recipe.sections().items():
        stage = stage_named(name)
        inputs = {role: nodes[role] for role in _inputs(stage, nodes, config)}
        stage = replace(stage, version=_version(stage, config, inputs))
        external = recorded(stage.name, config) if recorded else None
        external = external or external_digest(config, cache)
        identity = fingerprint(
            stage.name, stage.version, config, {role: node.fingerprint for role, node in inputs.items()}, external
        )
        ancestors[name] = {name}.union(*(ancestors[role] for role in inputs))
        label = label_of(recipe.name, ancestors[name])
        if stage.shared:
            label = required(recipe.source if stage.name == "source" else recipe.data, stage.name).source
        nodes[name] = Node(stage, config, inputs, identity, label, external)
    return nodes


def _version(stage: Stage, config: Config, inputs: Collection[str]) -> int:
    """The version of a stage with these settings. Where its meaning changed for some of them alone, results of before
    with others are still found."""
    if isinstance(config, Data) and config.limit is not None:  # images are drawn, no longer the first by name
        return max(stage.version, 2)
    if isinstance(config, Student) and config.quality and (config.condition or "source" in inputs):
        return max(stage.version, 3)  # the best average is chosen on training inputs, no longer on test inputs
    if isinstance(config, Evaluation) and config.teacher and "teacher" in inputs:
        return max(stage.version, 6)  # Jacobi decoding takes no token for final that follows one that moved
    if isinstance(config, Pairs) and config.nfe is None and (config.intervals > 1 or config.forward):
        return max(stage.version, 2)  # calls are counted over all intervals, and made without TF32
    return stage.version


def _inputs(stage: Stage, names: Collection[str], config: Config) -> list[str]:
    """Which of the stages before it a stage reads.

    A student reads the teacher only if it calls it at each step; otherwise its noises come from the bank. It reads the
    reference only for `quality`. A round of reflow reads the bank only if it mixes the bank's pairs in, an evaluation
    only for `noise_cost`.
    """
    unread: set[str] = set()
    if stage.newest:
        unread.update(students_among(names)[:-1], of_kind(names, "pairs")[:-1])
    if isinstance(config, Student) and not config.coupling.calls_teacher:
        unread.add("teacher")
    if isinstance(config, Student) and not config.quality:
        unread.add("reference")
    if isinstance(config, Reflow) and not config.mix.forward:
        unread.add("bank")
    if isinstance(config, Evaluation) and not config.noise_cost:
        unread.add("bank")
    return [name for name in of_kind(names, *stage.inputs) if name not in unread]


def external_digest(config: Config, cache: Path | None) -> str | None:
    """The digest of the files outside the store that a stage reads; None if it reads none."""
    from pipeline.data.sources import source_digest
    from pipeline.data.sources.digest import files_digest

    if isinstance(config, Data):
        return source_digest(config, cache)
    loss: Loss | None = getattr(config, "loss", None)
    return files_digest(loss.files, cache) if loss is not None and loss.files else None
