"""The DAG as it was run, and the command and recipe that reproduce it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import yaml

from pipeline.reporting.text.numbers import duration, fixed
from storage.artifact import Artifact
from storage.store import PREFIX


@dataclass(frozen=True)
class StageRow:
    """One stage as text: its identity, its inputs, its outcome, its settings."""

    name: str
    fingerprint: str
    reads: str
    outcome: str
    time: str
    share: str
    created: str
    device: str
    config: str


@dataclass(frozen=True)
class Reproduction:
    """The command, recipe and versions that reproduce the page's numbers."""

    command: str
    recipe: str
    facts: tuple[tuple[str, str], ...]
    revisions: tuple[str, ...]


def ran(inputs: Mapping[str, Artifact]) -> list[StageRow]:
    """The stages in the order of the DAG."""
    total = sum(artifact.provenance.wall_seconds for artifact in inputs.values()) or 1.0
    return [
        StageRow(
            name=role,
            fingerprint=artifact.fingerprint[:PREFIX],
            reads=", ".join(artifact.inputs),
            outcome=_outcome(artifact.provenance.resumed),
            time=duration(artifact.provenance.wall_seconds),
            share=fixed(100 * artifact.provenance.wall_seconds / total, 1),
            created=f"{artifact.provenance.minute} UTC",
            device=f"{artifact.provenance.device}, {artifact.provenance.threads} threads",
            config=_yaml(artifact.config),
        )
        for role, artifact in inputs.items()
    ]


def reproduction(inputs: Mapping[str, Artifact]) -> Reproduction:
    """Command, versions and revision of the evaluation, and other revisions that earlier stages were run at."""
    last = inputs["evaluation"].provenance
    program, *words = last.command or ["flowctl"]
    revisions = sorted({a.provenance.git_revision or "unknown" for a in inputs.values()} - {last.git_revision})
    facts = (
        ("Python", last.python),
        ("Platform", last.platform),
        ("Git revision", last.git_revision or "unknown"),
        *((name, version) for name, version in last.packages.items()),
    )
    return Reproduction(
        shlex.join([PurePath(program).name.removesuffix(".py"), *words]), recipe(inputs), facts, tuple(revisions)
    )


def recipe(inputs: Mapping[str, Artifact]) -> str:
    """The recipe in YAML, from the settings that the artifacts record: all that can change a result."""
    sections: dict[str, Any] = {"name": inputs["evaluation"].name}
    for role, artifact in inputs.items():
        kind, _, number = role.partition("-")
        if not number:
            sections[role] = artifact.config
        elif kind == "reflow":  # a round is one section of the two stages it takes
            sections.setdefault("reflow", []).append(
                {"pairs": _given(inputs[f"pairs-{number}"].config), **artifact.config}
            )
    if "pairs" in sections:
        sections["pairs"] = _given(sections["pairs"])
    return _yaml(sections)


def _given(pairs: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of pairs without those that follow from other sections."""
    return {name: value for name, value in pairs.items() if name not in ("intervals", "forward")}


def _outcome(resumed: int) -> str:
    return "run" if not resumed else "resumed once" if resumed == 1 else f"resumed {resumed} times"


def _yaml(tree: Mapping[str, Any]) -> str:
    flat = not any(isinstance(value, (Mapping, list, tuple)) for value in tree.values())
    return yaml.safe_dump(
        dict(tree), sort_keys=False, default_flow_style=False if flat else None, width=78, allow_unicode=True
    ).strip()
