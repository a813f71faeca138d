"""`diff`: what two recipes, or two artifacts, have in common and what not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import Json
from flows.cli.output import print_json, print_table

if TYPE_CHECKING:
    from pipeline.outputs.results import Score
    from pipeline.reporting.diff import Diff, Side, StageOf, StagePair

_WHAT = "A recipe, or an artifact: its directory, or its name as `list` prints it."


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help=_WHAT)],
    b: Annotated[str, typer.Argument(metavar="B", help=_WHAT)],
    json_: Json = False,
) -> None:
    """What differs between A and B: settings, results that are shared or not and why, provenance, scores."""
    from pipeline.reporting.diff import diff as compare

    found = compare(_side(a), _side(b))
    if json_:
        print_json(found.to_json())
        return
    typer.echo(f"A  {found.a}\nB  {found.b}\n")
    _print_settings(found)
    _print_stages(found)
    _print_origins(found)
    _print_scores(found)


def _side(name: str) -> Side:
    from flows.session.recipes import known, load, names
    from flows.session.recorded import finished_nodes
    from pipeline.recipe.load import nearest
    from pipeline.reporting.diff import of_artifact, of_recipe
    from storage.artifact import MANIFEST
    from storage.errors import InputError
    from storage.store import Store

    store = Store()
    if known(name):
        recipe = load(name)
        return of_recipe(recipe, store, finished_nodes(recipe, store))
    for folder in (Path(name), store.home / "artifacts" / name):
        if (folder / MANIFEST).is_file():
            return of_artifact(folder)
    raise InputError("diff takes recipes, and artifacts by their directory or name", name, nearest(name, names()))


def _print_settings(found: Diff) -> None:
    from pipeline.reporting.diff import short

    if found.settings:
        print_table(
            ("SETTING", "A", "B"), [(change.path, short(change.a), short(change.b)) for change in found.settings]
        )
    else:
        typer.echo("No setting differs.")


def _print_stages(found: Diff) -> None:
    typer.echo()
    print_table(
        ("STAGE", "A", "B", "RESULT"),
        [(pair.stage, *(_state(side) for side in (pair.a, pair.b)), _verdict(pair)) for pair in found.stages],
    )


def _state(stage: StageOf | None) -> str:
    if stage is None:
        return "–"
    if stage.damage:
        return "damaged"
    return f"{stage.fingerprint[:8]} {'made' if stage.artifact else 'not made'}"


def _verdict(pair: StagePair) -> str:
    return "shared" if pair.shared else "; ".join(pair.why)


def _print_origins(found: Diff) -> None:
    if found.origins:
        typer.echo()
        print_table(
            ("MADE WITH", "A", "B", "STAGES"),
            [(origin.fact, origin.a, origin.b, ", ".join(origin.stages)) for origin in found.origins],
        )


def _print_scores(found: Diff) -> None:
    from pipeline.reporting.diff import short

    scores = found.scores
    typer.echo()
    if scores.paired:
        print_table(
            ("MODEL", "SAMPLED BY", "CALLS", "METRIC", "A", "B", "B/A", "NOT EQUAL"),
            [
                (
                    row.a.model,
                    _way(row.a),
                    _calls(row.a, row.b),
                    row.a.metric,
                    f"{row.a.value:.4g}",
                    f"{row.b.value:.4g}",
                    "" if row.ratio is None else f"{row.ratio:.3f}",
                    ", ".join(f"{change.path} {short(change.a)} → {short(change.b)}" for change in row.unequal),
                )
                for row in scores.paired
            ],
        )
    if scores.protocol:
        typer.echo("The protocols differ, so that no number of A stands beside one of B:")
        print_table(
            ("PROTOCOL", "A", "B"), [(change.path, short(change.a), short(change.b)) for change in scores.protocol]
        )
    for side, alone in (("A", scores.a), ("B", scores.b)):
        if alone:
            typer.echo()
            print_table(
                (f"{side} ALONE", "SAMPLED BY", "CALLS", "METRIC", "VALUE"),
                [
                    (score.model, _way(score), _calls(score, score), score.metric, f"{score.value:.4g}")
                    for score in alone
                ],
            )
    if not (scores.paired or scores.a or scores.b):
        typer.echo("Neither is evaluated yet: no scores.")


def _way(score: Score) -> str:
    facts = score.protocol
    words = [score.solver, *([f"{facts['grid']} grid"] if facts.get("grid") else [])]
    if facts.get("guidance") not in (None, 0, 1):
        words.append(f"guidance {facts['guidance']:g}")
    return ", ".join(words)


def _calls(a: Score, b: Score) -> str:
    return f"{a.nfe:g}" if a.nfe == b.nfe else f"{a.nfe:g} / {b.nfe:g}"
