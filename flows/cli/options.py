"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Recipe = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="Name of a shipped recipe (see `list`) or of a run, or a YAML file; NAME@1 is its seed 1.",
    ),
]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a field of the recipe (repeatable).")
]
Sweeps = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="A.B=C",
        help="Change a field of the recipe (repeatable). A.B=C,D sweeps a number, switch or choice: one run for each.",
    ),
]
Force = Annotated[
    list[str] | None,
    typer.Option("--force", metavar="STAGE", help="Rerun this stage even if a result exists (repeatable)."),
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="STAGE", help="Stop after this stage; skip stages it does not need.")
]
Remote = Annotated[
    str | None,
    typer.Option(
        "--remote",
        metavar="s3://BUCKET/PREFIX",
        help="Fetch missing artifacts from here and upload finished ones; default $FLOWCTL_REMOTE.",
    ),
]
Nproc = Annotated[
    int | None, typer.Option("--nproc", metavar="N", help="Processes per machine that share each stage, one per GPU.")
]
Nnodes = Annotated[
    int | None,
    typer.Option(
        "--nnodes", metavar="N", help="Number of machines; start the same command on each, with one shared store."
    ),
]
NodeRank = Annotated[
    int | None, typer.Option("--node-rank", metavar="R", help="Rank of this machine; rank 0 plans, writes and records.")
]
Rendezvous = Annotated[
    str | None,
    typer.Option("--rdzv-endpoint", metavar="HOST:PORT", help="Rendezvous address: a free port of machine 0."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
