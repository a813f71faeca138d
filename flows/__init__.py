"""Orchestration: the Prefect flow, its tasks and the `flowctl` command line."""
