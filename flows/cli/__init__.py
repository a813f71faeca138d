"""`flowctl`, the command line. Each command imports what it needs when it is called: `--help` needs none of it."""

from flows.cli.app import app, main

__all__ = ["app", "main"]
