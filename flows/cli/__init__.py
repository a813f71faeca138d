"""`flowctl`, the command line. Each command imports its dependencies when it is called, so that `--help` is fast."""

from flows.cli.app import app, main

__all__ = ["app", "main"]
