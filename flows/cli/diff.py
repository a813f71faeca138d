"""`diff`: the differences of two recipes or two artifacts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import Json
from flows.cli.output import WIDTH, print_json, print_table
from pipeline.recipe.changes import Change, one_line

if TYPE_CHECKING:
    from pipeline.outputs.results import Score
    from pipeline.reporting.diff import Diff, Side, StageOf, StagePair

NARROW = 40  # characters of a value that has its place in a column
_WHAT = "A recipe, or an artifact: its directory, or its name as printed by `list`."


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help=_WHAT)],
    b: Annotated[str, typer.Argument(metavar="B", help=_WHAT)],
    json_: Json = False,
) -> None:
    """Show how A and B differ: settings, shared results and why others are not shared, provenance, scores."""
    from pipeline.reporting.diff import diff as compare

    result = compare(_side(a), _side(b))
    if json_:
        print_json(result.to_json())
        return
    typer.echo(f"A  {result.a}\nB  {result.b}\n")
    _print_settings(result)
    _print_stages(result)
    _print_provenance(result)
    _print_scores(result)


def _side(name: str) -> Side:
    from flows.session.recipes import exists, load, names
    from flows.session.recorded import finished_nodes
    from pipeline.recipe.load import nearest
    from pipeline.reporting.diff import of_artifact, of_recipe
    from storage.artifact import MANIFEST
    from storage.errors import MissingError
    from storage.store import Store

    store = Store()
    if exists(name):
        recipe = load(name)
        return of_recipe(recipe, store, finished_nodes(recipe, store))
    for folder in (Path(name), store.home / "artifacts" / name):
        if (folder / MANIFEST).is_file():
            return of_artifact(folder)
    raise MissingError("diff needs a recipe, or the directory or name of an artifact", name, nearest(name, names()))


def _print_settings(result: Diff) -> None:
    if result.settings:
        _print_changes("SETTING", result.settings)
    else:
        typer.echo("No setting differs.")


def _print_changes(title: str, changes: Sequence[Change]) -> None:
    """A line for each field; long values whole and wrapped, in a block for each."""
    values = [(change.path, one_line(change.a), one_line(change.b)) for change in changes]
    short = [(path, a, b) for path, a, b in values if len(a) <= NARROW and len(b) <= NARROW]
    if short:
        print_table((title, "A", "B"), short)
    for path, a, b in values:
        if (path, a, b) not in short:
            typer.echo(path if not short else f"\n{path}")
            print_table(("  A", a), [("  B", b)], WIDTH)


def _print_stages(result: Diff) -> None:
    typer.echo()
    print_table(
        ("STAGE", "A", "B", "RESULT"),
        [(pair.stage, *(_state(side) for side in (pair.a, pair.b)), _verdict(pair)) for pair in result.stages],
        WIDTH,
    )


def _state(stage: StageOf | None) -> str:
    if stage is None:
        return "–"
    if stage.damage:
        return "damaged"
    return f"{stage.fingerprint[:8]} {'exists' if stage.artifact else 'missing'}"


def _verdict(pair: StagePair) -> str:
    return "shared" if pair.shared else "; ".join(pair.why)


def _print_provenance(result: Diff) -> None:
    if result.origins:
        typer.echo()
        print_table(
            ("PROVENANCE", "A", "B", "STAGES"),
            [(origin.fact, origin.a, origin.b, ", ".join(origin.stages)) for origin in result.origins],
        )


def _print_scores(result: Diff) -> None:
    from pipeline.reporting.scores.table import setting

    scores = result.scores
    every = [*(row.a for row in scores.paired), *scores.a, *scores.b]
    typer.echo()
    if scores.paired:
        print_table(
            ("MODEL", "SAMPLER", "NFE", "METRIC", "A", "B", "B/A", "DIFFERENT SETTINGS"),
            [
                (
                    row.a.model,
                    setting(row.a, every),
                    _nfe(row.a, row.b),
                    row.a.metric,
                    f"{row.a.value:.4g}",
                    f"{row.b.value:.4g}",
                    "" if row.ratio is None else f"{row.ratio:.3f}",
                    ", ".join(f"{change.path} {one_line(change.a)} → {one_line(change.b)}" for change in row.unequal),
                )
                for row in scores.paired
            ],
            WIDTH,
        )
    if scores.protocol:
        typer.echo("The protocols differ, so scores of A and B are not comparable:")
        _print_changes("PROTOCOL", scores.protocol)
    for side, alone in (("A", scores.a), ("B", scores.b)):
        if alone:
            typer.echo()
            print_table(
                (f"ONLY {side}", "SAMPLER", "NFE", "METRIC", "VALUE"),
                [
                    (score.model, setting(score, every), _nfe(score, score), score.metric, f"{score.value:.4g}")
                    for score in alone
                ],
            )
    if not (scores.paired or scores.a or scores.b):
        typer.echo("No scores: neither has an evaluation.")


def _nfe(a: Score, b: Score) -> str:
    return f"{a.nfe:g}" if a.nfe == b.nfe else f"{a.nfe:g} / {b.nfe:g}"
