"""When: the times a student is trained at, and the grids it is sampled on. t = 0 is data, t = 1 is noise."""

from pipeline.flow_matching.times._distributions import At as At
from pipeline.flow_matching.times._distributions import LogitNormal as LogitNormal
from pipeline.flow_matching.times._distributions import TimeDistribution as TimeDistribution
from pipeline.flow_matching.times._distributions import Uniform as Uniform
from pipeline.flow_matching.times._distributions import UShaped as UShaped
from pipeline.flow_matching.times._distributions import times_of_config as times_of_config
from pipeline.flow_matching.times._grids import GRIDS as GRIDS
from pipeline.flow_matching.times._grids import time_grid as time_grid
