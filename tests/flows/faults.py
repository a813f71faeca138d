"""The error behind a command's exit code: tests assert its class and values, not its sentence."""

from __future__ import annotations

from click.testing import Result

from storage.errors import FlowctlError


def fault(result: Result) -> FlowctlError:
    """The flowctl error that ended the command; fails where it ended otherwise, or printed more than one line."""
    error: BaseException | None = result.exception
    while error is not None and not isinstance(error, FlowctlError):
        error = error.__context__
    assert error is not None, f"no flowctl error: {result.exception!r}\n{result.output}"
    assert result.exit_code == error.exit_code
    assert result.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in result.output
    return error
