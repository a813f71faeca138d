"""Numbers as text, the same on the terminal, in Prefect and in `flowctl status`."""

from __future__ import annotations

from pipeline.reporting.text.numbers import duration as duration
from pipeline.runtime.job import ProgressUpdate


def size(count: float) -> str:
    """Bytes in three digits: 1.23 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def moment(report: ProgressUpdate) -> str:
    """12,800 of 64,000 images, 512/s, loss 0.31, 41 s left."""
    return ", ".join([f"{report.done:,} of {report.total:,} {report.unit}", *_pace(report, "")])


def line(report: ProgressUpdate) -> str:
    """student 41 %, 1,068 images/s, loss 0.092, 4 min 05 s left."""
    percent = 100 * report.done // report.total if report.total else 0
    return ", ".join([f"{report.stage} {percent} %", *_pace(report, f" {report.unit}")])


def _pace(report: ProgressUpdate, unit: str) -> list[str]:
    """Rate, loss and time left, as far as they are known."""
    parts = []
    if report.rate > 0:
        parts.append((f"{report.rate:,.3g}" if report.rate < 100 else f"{report.rate:,.0f}") + f"{unit}/s")
    if isinstance(report.facts.get("loss"), int | float):
        parts.append(f"loss {report.facts['loss']:.4g}")
    for name, label in (("fd", "FD"), ("held_out_bits", "held-out bits")):  # while it trains, at its last point
        if isinstance(report.facts.get(name), int | float):
            parts.append(f"{label} {report.facts[name]:.4g}")
    if report.seconds_left and report.done < report.total:
        parts.append(f"{duration(report.seconds_left)} left")
    return parts
