"""`status`: the stages that run now, in any process, and those that were stopped."""

from __future__ import annotations

from typing import Any

import typer

from flows.cli.options import Json
from flows.cli.output import print_json, print_table


def status(json_: Json = False) -> None:
    """Show running and stopped stages of this store: progress, rate, time left, memory, last save, end of the run."""
    from flows.upkeep.status import unfinished
    from storage.store import Store

    store = Store()
    items = unfinished(store)
    if json_:
        print_json(items)
    elif items:
        print_table(
            ("STAGE", "STATE", "RECIPE", "PROCESS", "PROGRESS", "MEMORY", "DATA WAIT", "LAST SAVE", "RUN ENDS"),
            [_row(item) for item in items],
        )
    else:
        typer.echo(f"Nothing is running in {store.home}")


def _row(item: dict[str, Any]) -> tuple[str, ...]:
    import time

    from flows.session import words
    from pipeline.runtime.job import ProgressUpdate

    progress, saved = "", "nothing yet"
    if item["done"] is not None:
        progress = words.moment(
            ProgressUpdate(item["stage"], item["done"], item["total"], item["unit"], item["rate"] or 0.0, item["facts"])
        )
    if item["waits_for"] is not None:
        progress, saved = f"waiting for {item['waits_for']}", ""
    if item["saved"] is not None:
        age = words.duration(time.time() - item["saved"]["time"])
        saved = f"{item['saved']['done']:,} {item['saved']['unit']}, {age} ago"
    facts = item["facts"] if item["state"] == "running" else {}
    memory = [
        f"{facts[name]:,.0f} MiB{device}"
        for name, device in (("memory_mib", ""), ("gpu_memory_mib", " of the GPU"))
        if name in facts
    ]
    return (
        f"{item['stage']} {item['fingerprint'][:8]}",
        item["state"],
        item["recipe"] or "",
        str(item["pid"] or ""),
        progress,
        ", ".join(memory),
        f"{facts['data_wait']:.1%}" if "data_wait" in facts else "",
        saved,
        "" if item["run_seconds_left"] is None else words.ending(item["run_seconds_left"]),
    )
