"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Recipe = Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe's name (see `list`) or a YAML file.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change one field of the recipe; "
                                                "may be repeated.")]
Force = Annotated[list[str] | None, typer.Option("--force", metavar="STAGE", help="Make this stage anew; may be "
                                                 "repeated.")]
Until = Annotated[str | None, typer.Option("--until", metavar="STAGE", help="Only this stage and what it needs.")]
Json = Annotated[bool, typer.Option("--json", help="For scripts.")]
