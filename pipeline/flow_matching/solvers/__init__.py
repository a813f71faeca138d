"""Solvers of dx/dt = v(x, t), and the count of network calls that they really make."""

from pipeline.flow_matching.solvers._base import Solver as Solver
from pipeline.flow_matching.solvers._dopri5 import Dopri5 as Dopri5
from pipeline.flow_matching.solvers._dopri5 import adaptive as adaptive
from pipeline.flow_matching.solvers._field import CountedField as CountedField
from pipeline.flow_matching.solvers._field import Guided as Guided
from pipeline.flow_matching.solvers._field import Velocity as Velocity
from pipeline.flow_matching.solvers._field import calls_per_evaluation as calls_per_evaluation
from pipeline.flow_matching.solvers._fixed_step import RK4 as RK4
from pipeline.flow_matching.solvers._fixed_step import Euler as Euler
from pipeline.flow_matching.solvers._fixed_step import FixedStep as FixedStep
from pipeline.flow_matching.solvers._fixed_step import Heun as Heun
from pipeline.flow_matching.solvers._fixed_step import Jump as Jump
from pipeline.flow_matching.solvers._fixed_step import Midpoint as Midpoint
from pipeline.flow_matching.solvers._integrate import NotFinite as NotFinite
from pipeline.flow_matching.solvers._integrate import integrate as integrate
from pipeline.flow_matching.solvers._integrate import trajectory as trajectory
from pipeline.flow_matching.solvers._plan import SOLVERS as SOLVERS
from pipeline.flow_matching.solvers._plan import plan_for_nfe as plan_for_nfe
