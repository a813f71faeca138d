"""Spending a given number of network calls exactly."""

from __future__ import annotations

from dataclasses import dataclass, fields

from pipeline.flow_matching.solvers._base import FixedStep, Solver
from pipeline.flow_matching.solvers._dopri5 import Dopri5
from pipeline.flow_matching.solvers._euler import Euler
from pipeline.flow_matching.solvers._heun import Heun
from pipeline.flow_matching.solvers._midpoint import Midpoint
from pipeline.flow_matching.solvers._rk4 import RK4
from storage.errors import InputError

_SOLVERS: dict[str, type[Solver]] = {kind.name: kind for kind in (Euler, Midpoint, Heun, RK4, Dopri5)}

#: The names that `make_solver` knows.
SOLVERS = tuple(_SOLVERS)


@dataclass(frozen=True)
class Plan:
    """A solver and the number of steps with which it makes exactly the network calls that were asked for."""

    solver: FixedStep
    steps: int


def make_solver(name: str, **settings: object) -> Solver:
    """A solver by name, e.g. `make_solver("dopri5", rtol=1e-4)`.

    Raises:
        InputError: unknown name, or a setting that this solver does not have.
    """
    try:
        kind = _SOLVERS[name]
    except KeyError:
        raise InputError("A solver has a known name", name, f"Choose among {', '.join(SOLVERS)}.") from None
    try:
        return kind(**settings)
    except TypeError:
        known = ", ".join(field.name for field in fields(kind)) or "none"
        raise InputError(f"{name} has the settings {known}", sorted(settings), "Remove the others.") from None


def plan_for_nfe(name: str, nfe: int, calls_per_evaluation: int = 1) -> Plan:
    """The solver and steps that spend exactly `nfe` network calls.

    One step costs 1 evaluation for euler, 2 for midpoint and heun, 4 for rk4. For heun an odd number of evaluations,
    2n - 1, is n steps of which the last is Euler's, as in EDM: 31 is 16 steps, 1 is plain Euler. So heun reaches every
    number.

    Args:
        name: a solver of fixed steps.
        nfe: network calls to make.
        calls_per_evaluation: 2 under guidance, see `pipeline.flow_matching.solvers.calls_per_evaluation`.

    Raises:
        InputError: no number of steps costs exactly that; the message names the nearest that can be had.
    """
    solver = make_solver(name)
    if not isinstance(solver, FixedStep):
        raise InputError(
            "Calls can be planned only for a solver of fixed steps", name, "Ask it for tolerances and count its calls."
        )
    unit = calls_per_evaluation if name == "heun" else solver.evaluations * calls_per_evaluation
    if nfe < 1 or nfe % unit:
        below = nfe // unit * unit
        nearest = " or ".join(str(n) for n in (below, below + unit) if n > 0)
        guided = " under guidance" if calls_per_evaluation > 1 else ""
        rule = f"The network calls of {name}{guided} are a positive multiple of {unit}"
        raise InputError(rule, nfe, f"The nearest is {nearest if nfe > 0 else unit}.")
    if name == "heun":
        evaluations = nfe // unit
        return Plan(Heun(euler_last=evaluations % 2 == 1), (evaluations + 1) // 2)
    return Plan(solver, nfe // unit)
