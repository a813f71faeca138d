"""Which results two sides share, and why they do not share the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.engine.dag import NAMES
from pipeline.recipe.changes import Change, changes
from pipeline.reporting.diff._operands import Side, StageOf
from storage.artifact import Artifact


@dataclass(frozen=True)
class StagePair:
    """One stage on both sides.

    Attributes:
        stage: its name.
        a, b: None where a side has no such stage.
        changes: of its settings, as far as they can change the result.
        inputs: roles that the two read different results of.
        why: in words, why the results are not the same; empty where they are.
    """

    stage: str
    a: StageOf | None
    b: StageOf | None
    changes: tuple[Change, ...]
    inputs: tuple[str, ...]
    why: tuple[str, ...]

    @property
    def shared(self) -> bool:
        """Whether both sides have the same result, present or not."""
        return self.a is not None and self.b is not None and self.a.fingerprint == self.b.fingerprint

    def to_json(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "shared": self.shared,
            "a": _stage_json(self.a),
            "b": _stage_json(self.b),
            "changes": [change.to_json() for change in self.changes],
            "inputs": list(self.inputs),
            "why": list(self.why),
        }


@dataclass(frozen=True)
class Origin:
    """A fact of provenance that differs, and the stages in which it does."""

    fact: str
    a: str
    b: str
    stages: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"fact": self.fact, "a": self.a, "b": self.b, "stages": list(self.stages)}


def stage_pairs(a: Side, b: Side) -> list[StagePair]:
    """All stages of either side, in the order of the DAG."""
    return [
        _pair(name, a.stages.get(name), b.stages.get(name)) for name in NAMES if name in a.stages or name in b.stages
    ]


def origins(pairs: list[StagePair]) -> list[Origin]:
    """Differences of packages, revision and machine between results of both sides; none of them is identity.

    One and the same artifact has one origin. Equal differences of several stages are one line.
    """
    stages_of: dict[tuple[str, str, str], list[str]] = {}
    for pair in pairs:
        one, other = (None if side is None else side.artifact for side in (pair.a, pair.b))
        if one is None or other is None or one.root == other.root:
            continue
        before, after = _facts(one), _facts(other)
        for fact in dict.fromkeys([*before, *after]):
            values = before.get(fact, "none"), after.get(fact, "none")
            if values[0] != values[1]:
                stages_of.setdefault((fact, *values), []).append(pair.stage)
    return [Origin(*key, tuple(stages)) for key, stages in stages_of.items()]


def _pair(name: str, a: StageOf | None, b: StageOf | None) -> StagePair:
    if a is None or b is None:
        return StagePair(name, a, b, (), (), (f"{'B' if a is None else 'A'} alone has it",))
    if a.fingerprint == b.fingerprint:
        return StagePair(name, a, b, (), (), ())
    changed = tuple(changes(a.settings, b.settings))
    inputs = tuple(role for role in NAMES if a.inputs.get(role) != b.inputs.get(role))
    why = [f"own settings: {', '.join(change.path for change in changed)}"] if changed else []
    if a.version != b.version:
        why.append(f"stage version: {a.version} → {b.version}")
    reads = {
        "reads another": [role for role in inputs if role in a.inputs and role in b.inputs],
        "A alone reads": [role for role in inputs if role not in b.inputs],
        "B alone reads": [role for role in inputs if role not in a.inputs],
    }
    why += [f"{words} {', '.join(roles)}" for words, roles in reads.items() if roles]
    return StagePair(name, a, b, changed, inputs, tuple(why) or ("the files that it reads differ",))


def _facts(artifact: Artifact) -> Mapping[str, str]:
    provenance = artifact.provenance
    return {
        "git revision": provenance.git_revision or "unknown",
        "device": provenance.device,
        "threads": str(provenance.threads),
        "platform": provenance.platform,
        "python": provenance.python,
        **provenance.packages,
    }


def _stage_json(stage: StageOf | None) -> dict[str, Any] | None:
    if stage is None:
        return None
    return {
        "fingerprint": stage.fingerprint,
        "version": stage.version,
        "finished": stage.artifact is not None,
        "path": None if stage.artifact is None else str(stage.artifact.root),
        "damage": stage.damage,
    }
