"""The Typer application: global options and the list of commands."""

from __future__ import annotations

from typing import Annotated

import typer
from typer.core import TyperGroup

from flows.cli import (
    browse,
    cleaning,
    comparing,
    coupling_banks,
    deploying,
    differing,
    exporting,
    looking,
    running,
    sampling,
    serving,
    verifying,
)
from flows.cli.errors import OPTIONS, reports_errors
from flows.session.process import prepare_process


class Commands(TyperGroup):
    """`--debug` is understood wherever it stands: one wants it after a command has failed."""

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


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"flowctl {version('flowctl')}")
        except PackageNotFoundError:  # run from a checkout that is not installed
            typer.echo("flowctl (not installed)")
        raise typer.Exit


@app.callback()
def flowctl(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and Prefect's log.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    OPTIONS.debug = debug


for _command in (
    running.run,
    running.plan,
    browse.list_,
    browse.show,
    looking.status,
    looking.results,
    looking.report,
    comparing.compare,
    differing.diff,
    sampling.sample,
    exporting.export,
    verifying.verify,
    cleaning.gc,
    cleaning.rm,
    deploying.deploy,
    serving.ui,
):
    app.command(_command.__name__.rstrip("_"))(reports_errors(_command))

couplings = typer.Typer(no_args_is_help=True, help="Banks of couplings.")
couplings.command("inspect")(reports_errors(coupling_banks.inspect))
app.add_typer(couplings, name="bank")


def main() -> None:
    """The `flowctl` program."""
    prepare_process()
    app()
