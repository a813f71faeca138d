"""How a failure reaches the user: one line on stderr and an exit code, 1 for a stage, 2 for usage or input."""

from __future__ import annotations

import errno
import functools
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import typer

from storage.errors import FlowctlError

RESUME = "Rerun the same command to resume."


@dataclass
class Options:
    """The options given before the command's name."""

    debug: bool = False


OPTIONS = Options()


def reports_errors(command: Callable[..., None]) -> Callable[..., None]:
    """The command with its exceptions turned into one line and an exit code."""

    @functools.wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            _fail(f"Stopped at once. {RESUME}", 1)
        except FlowctlError as error:
            _fail(_with_remedy(error), error.exit_code)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            remedy = ". Free some space there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
            _fail(f"{where}{error.strerror or error}{remedy}", 1)
        except Exception as error:
            _fail(f"{type(error).__name__}: {error}. This should not happen: --debug shows where it did", 1)

    return guarded


def _with_remedy(error: FlowctlError) -> str:
    text = str(error).rstrip(".")
    text += "" if text.endswith("?") else "."
    return f"{text} {RESUME}" if error.retryable else text


def _fail(text: str, code: int) -> None:
    if OPTIONS.debug:
        traceback.print_exc()
    print("error: " + re.sub(r"\s*\n\s*", " ", text.strip()), file=sys.stderr, flush=True)
    raise typer.Exit(code)
