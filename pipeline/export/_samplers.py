"""Sampler settings of a student: a solver on a grid at a number of calls, written evaluation by evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from pipeline.flow_matching.paths import GaussianPath, preconditioning
from pipeline.flow_matching.solvers import Heun, calls_per_evaluation, plan_for_nfe
from pipeline.flow_matching.times import time_grid
from pipeline.outputs.results import Score
from pipeline.recipe.sections import ADAPTIVE
from pipeline.reporting.scores.metrics import lower_is_better
from storage.required import complete

NEAR = 1.1  # times the best score: the recommended number of calls is the fewest within it


@dataclass(frozen=True)
class SamplerSetting:
    """A way to sample, and its score where it was measured."""

    solver: str
    grid: str
    nfe: int
    guidance: float = 1.0
    value: float | None = None
    temperature: float = 1.0


def measured_ways(scores: Sequence[Score]) -> list[SamplerSetting]:
    """The ways in which one model was measured, fewest calls first, the better first among equals.

    Only the evaluation's first metric counts. An adaptive solver is left out: its calls follow from the batch.
    """
    if not scores:
        return []
    first = scores[0].metric
    chosen = [score for score in scores if score.metric == first and score.solver != ADAPTIVE]
    chosen.sort(key=lambda score: (int(score.nfe), score.value if lower_is_better(first) else -score.value))
    return [
        SamplerSetting(s.solver, s.protocol["grid"], int(s.nfe), s.protocol["guidance"], s.value, s.temperature)
        for s in chosen
    ]


def recommended(ways: Sequence[SamplerSetting], metric: str | None) -> int:
    """Index of the fewest calls whose score is within 10 % of the best; of the most calls where none was measured."""
    values = complete([way.value for way in ways])
    if metric is None or not values:
        return len(ways) - 1
    if lower_is_better(metric):
        limit = NEAR * min(values)
        return next(i for i, value in enumerate(values) if value <= limit)
    limit = max(values) / NEAR
    return next(i for i, value in enumerate(values) if value >= limit)


def written(way: SamplerSetting, path: GaussianPath) -> dict[str, Any]:
    """The way as `models.load` reads it: each step with its times, and each evaluation of the velocity in its order.

    Off the straight paths an evaluation also has the three factors of `pipeline.flow_matching.paths.preconditioning`:
    v = skip x + velocity_scale g(input_scale x, t). An evaluation of an average velocity has the other end r too.
    """
    plan = plan_for_nfe(way.solver, way.nfe, calls_per_evaluation(way.guidance))
    times = path.times(time_grid(way.grid, plan.steps)).tolist()
    asked: list[dict[str, float]] = []

    def velocity(x: Tensor, t: Tensor, r: Tensor | None = None) -> Tensor:
        asked.append(_evaluation(t.item(), path) | ({} if r is None else {"r": r.item()}))
        return x

    for _ in plan.solver.walk(velocity, torch.zeros(1, dtype=torch.float64), times):
        pass
    steps = [{"solver": way.solver, "t": t, "to": to} for t, to in pairwise(times)]
    if isinstance(plan.solver, Heun) and plan.solver.euler_last:
        steps[-1]["solver"] = "euler"
    return {
        "nfe": way.nfe,
        "solver": way.solver,
        "grid": way.grid,
        "guidance": way.guidance,
        "temperature": way.temperature,
        "score": way.value,
        "steps": steps,
        "evaluations": asked,
    }


def _evaluation(t: float, path: GaussianPath) -> dict[str, float]:
    if path.straight:
        return {"t": t}
    # In float32, as a student is sampled.
    scales = preconditioning(path, torch.tensor(t).clamp(min=path.t_end))
    return {"t": t, **{name: value.item() for name, value in scales._asdict().items()}}
