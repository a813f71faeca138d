"""Solvers by name, and the steps that spend a given NFE (number of network evaluations) exactly."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.flow_matching.solvers._base import Solver
from pipeline.flow_matching.solvers._dopri5 import Dopri5
from pipeline.flow_matching.solvers._fixed_step import RK4, Euler, FixedStep, Heun, Jump, Midpoint
from storage.errors import InputError

#: By the names that sections validate (`pipeline.recipe.sections.Solver`).
SOLVERS: dict[str, type[Solver]] = {kind.name: kind for kind in (Euler, Midpoint, Heun, RK4, Dopri5, Jump)}


@dataclass(frozen=True)
class Plan:
    """A solver and the number of steps with which it spends exactly the NFE that was asked for."""

    solver: FixedStep
    steps: int


def plan_for_nfe(name: str, nfe: int, calls_per_evaluation: int = 1) -> Plan:
    """The solver and steps that spend exactly `nfe` network calls.

    One step costs 1 evaluation for euler and jump, 2 for midpoint and heun, 4 for rk4. For heun an odd number of
    evaluations, 2n - 1, is n steps of which the last is Euler's, as in EDM: 31 is 16 steps, 1 is plain Euler. So heun
    reaches every number.

    Args:
        name: a solver of fixed steps.
        nfe: network calls to make.
        calls_per_evaluation: 2 under guidance, see `pipeline.flow_matching.solvers.calls_per_evaluation`.

    Raises:
        InputError: no number of steps costs exactly that; the remedy names the nearest NFE.
    """
    solver = SOLVERS[name]()
    if not isinstance(solver, FixedStep):
        raise InputError("NFE must be asked of a solver of fixed steps", name, "Count the calls of an adaptive solver.")
    unit = calls_per_evaluation if name == "heun" else solver.evaluations * calls_per_evaluation
    if nfe < 1 or nfe % unit:
        below = nfe // unit * unit
        nearest = " or ".join(str(n) for n in (below, below + unit) if n > 0)
        guided = " under guidance" if calls_per_evaluation > 1 else ""
        rule = f"The NFE of {name}{guided} must be a positive multiple of {unit}"
        raise InputError(rule, nfe, f"The nearest is {nearest if nfe > 0 else unit}.")
    if name == "heun":
        evaluations = nfe // unit
        return Plan(Heun(euler_last=evaluations % 2 == 1), (evaluations + 1) // 2)
    return Plan(solver, nfe // unit)
