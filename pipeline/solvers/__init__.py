"""Solvers of dx/dt = v(x, t), one per file, and the count of network calls they really make."""

from pipeline.solvers._base import FixedStep as FixedStep
from pipeline.solvers._base import Solver as Solver
from pipeline.solvers._dopri5 import Dopri5 as Dopri5
from pipeline.solvers._euler import Euler as Euler
from pipeline.solvers._field import CountedField as CountedField
from pipeline.solvers._field import Velocity as Velocity
from pipeline.solvers._field import calls_per_evaluation as calls_per_evaluation
from pipeline.solvers._field import guided as guided
from pipeline.solvers._heun import Heun as Heun
from pipeline.solvers._integrate import integrate as integrate
from pipeline.solvers._integrate import trajectory as trajectory
from pipeline.solvers._midpoint import Midpoint as Midpoint
from pipeline.solvers._plan import SOLVERS as SOLVERS
from pipeline.solvers._plan import Plan as Plan
from pipeline.solvers._plan import make_solver as make_solver
from pipeline.solvers._plan import plan_for_nfe as plan_for_nfe
from pipeline.solvers._rk4 import RK4 as RK4
