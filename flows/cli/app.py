"""The Typer application: global options and the list of commands."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer
from typer.core import TyperGroup

from flows.cli.bank import bank
from flows.cli.compare import compare
from flows.cli.deploy import deploy
from flows.cli.diff import diff
from flows.cli.errors import OPTIONS, reports_errors
from flows.cli.export import export
from flows.cli.fid import fid
from flows.cli.gc import gc
from flows.cli.list import list_
from flows.cli.plan import plan
from flows.cli.report import report
from flows.cli.results import results
from flows.cli.rm import rm
from flows.cli.run import run
from flows.cli.runs import runs
from flows.cli.sample import sample
from flows.cli.show import show
from flows.cli.status import status
from flows.cli.ui import ui
from flows.cli.verify import verify
from flows.session.process import prepare_process
from storage.errors import FlowctlError


class Commands(TyperGroup):
    """Accepts `--debug` at any position, because users add it at the end after a command has failed."""

    def parse_args(self, ctx, args: list[str]) -> list[str]:
        given = "--debug" in args
        return super().parse_args(ctx, ["--debug"] * given + [word for word in args if word != "--debug"])


app = typer.Typer(
    name="flowctl",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Distil normalizing flows into few-step image generators, as a cached and restartable DAG.",
    epilog="The store is $FLOWCTL_HOME, by default .flowctl in the current directory.",
)


def _version(requested: bool) -> None:
    if requested:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"flowctl {version('flowctl')}")
        except PackageNotFoundError:  # a checkout that is not installed
            typer.echo("flowctl (not installed)")
        raise typer.Exit


@app.callback()
def flowctl(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and Prefect's log.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    OPTIONS.debug = debug


for _command in (
    run,
    plan,
    list_,
    show,
    status,
    runs,
    results,
    report,
    compare,
    diff,
    sample,
    fid,
    export,
    verify,
    gc,
    rm,
    deploy,
    ui,
):
    app.command(_command.__name__.rstrip("_"))(reports_errors(_command))
app.add_typer(bank, name="bank")


def main() -> None:
    """The `flowctl` program."""
    try:
        prepare_process()
    except FlowctlError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    code: int | str | None = None
    try:
        app()
    except SystemExit as end:
        code = end.code
    except OSError as error:  # of typer's own output, as --help to a disk that is full
        code = f"error: {error.strerror or error}"
    try:
        sys.stdout.flush()
    except OSError as error:
        code = code or f"error: {error.strerror or error}"
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes the rest when it ends
    sys.exit(code)
