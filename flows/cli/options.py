"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Recipe = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="A shipped recipe's name (see `list`), a YAML file, or the name of a run: its recipe as last run.",
    ),
]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change one field of the recipe; may be repeated.")
]
Force = Annotated[
    list[str] | None, typer.Option("--force", metavar="STAGE", help="Make this stage anew; may be repeated.")
]
Until = Annotated[str | None, typer.Option("--until", metavar="STAGE", help="Only this stage and what it needs.")]
Remote = Annotated[
    str | None,
    typer.Option(
        "--remote",
        metavar="s3://BUCKET/PREFIX",
        help="Fetch from here what the store lacks, and send here what is finished; by default $FLOWCTL_REMOTE.",
    ),
]
Nproc = Annotated[
    int | None,
    typer.Option("--nproc", metavar="N", help="Processes on this machine that share each stage, one for each GPU."),
]
Nnodes = Annotated[
    int | None,
    typer.Option(
        "--nnodes", metavar="N", help="Machines that share each stage; run the same command on all, with one store."
    ),
]
NodeRank = Annotated[
    int | None, typer.Option("--node-rank", metavar="R", help="Which machine this is; 0 keeps the books.")
]
Rendezvous = Annotated[
    str | None,
    typer.Option("--rdzv-endpoint", metavar="HOST:PORT", help="Where the machines meet: a free port of machine 0."),
]
Json = Annotated[bool, typer.Option("--json", help="For scripts.")]
