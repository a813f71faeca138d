"""The Fréchet distance: features and moments next to the time of sampling, in milliseconds per image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from benchmarks.evaluation import cases
from benchmarks.evaluation import measure as measured
from benchmarks.gpu_parts import Context, Row


def measure(context: Context) -> Iterator[Row]:
    for case in cases(context.device.type, context.quick):
        small = replace(case, images=64, batch=32) if context.quick else case
        result = measured(small, context.device, 1 if context.quick else 4)
        for row in result["rows"]:
            spent = ("sampling", "features", "moments", "further")
            yield {
                "case": case.recipe,
                "features wide": result["features"],
                "solver": row["solver"],
                "calls": row["calls"],
                "images": row["images"],
                **{f"{name}, ms": 1e3 * row[name] / row["images"] for name in spent},
            }
        for name, seconds in result["once"].items():
            yield {"case": case.recipe, "once": name, "seconds": seconds}
