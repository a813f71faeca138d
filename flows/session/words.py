"""Numbers as text, the same on the terminal, in Prefect and in `flowctl status`."""

from __future__ import annotations

from pipeline.runtime.job import ProgressUpdate


def duration(seconds: float) -> str:
    """0.4 s, 41 s, 6 min 05 s, 3 h 10 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(count: float) -> str:
    """Bytes in three digits: 1.23 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def moment(report: ProgressUpdate) -> str:
    """12,800 of 64,000 images, 512/s, loss 0.31, 41 s left."""
    parts = [f"{report.done:,} of {report.total:,} {report.unit}"]
    if report.rate > 0:
        parts.append(f"{report.rate:,.3g}/s" if report.rate < 100 else f"{report.rate:,.0f}/s")
    if isinstance(report.facts.get("loss"), int | float):
        parts.append(f"loss {report.facts['loss']:.4g}")
    if report.seconds_left and report.done < report.total:
        parts.append(f"{duration(report.seconds_left)} left")
    return ", ".join(parts)
