"""Numbers as text, the same on the terminal, in Prefect and in `flowctl status`."""

from __future__ import annotations

import time

from pipeline.reporting.text.numbers import duration as duration
from pipeline.runtime.job import ProgressUpdate

MOSTLY = 0.9  # share of a time that decides what it is called


def size(count: float) -> str:
    """Bytes in three digits: 1.23 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:  # else three digits would be 1e+03
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def basis(measured: float) -> str:
    """Whether a time comes from measured rates, of the share of it that does."""
    if measured >= MOSTLY:
        return "measured"
    return "estimated" if measured <= 1 - MOSTLY else f"{measured:.0%} measured"


def ending(seconds: float, now: float | None = None) -> str:
    """The clock's time that is `seconds` from now: at 17:42 (in 1 h 05 min); with the date on another day."""
    began = time.time() if now is None else now
    end = time.localtime(began + seconds)
    today = end[:3] == time.localtime(began)[:3]
    return f"{time.strftime('at %H:%M' if today else 'on %Y-%m-%d at %H:%M', end)} (in {duration(seconds)})"


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
