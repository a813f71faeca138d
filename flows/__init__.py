"""Orchestration: the Prefect flow, its tasks and the `flowctl` command line."""

import flowctl  # noqa: F401 - makes sure that `models`, `pipeline` and `storage` are ours
