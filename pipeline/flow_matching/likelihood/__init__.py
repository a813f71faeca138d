"""How likely data are under a student, read as a continuous normalizing flow."""

from pipeline.flow_matching.likelihood._bits import bin_width as bin_width
from pipeline.flow_matching.likelihood._bits import bits_per_dimension as bits_per_dimension
from pipeline.flow_matching.likelihood._bits import dequantise as dequantise
from pipeline.flow_matching.likelihood._density import log_density as log_density
from pipeline.flow_matching.likelihood._divergence import EXACT_DIMENSIONS as EXACT_DIMENSIONS
