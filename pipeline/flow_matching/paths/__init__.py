"""Paths from data (t = 0) to noise (t = 1), x_t = a(t) x + s(t) z, and how a network learns their velocity."""

from pipeline.flow_matching.paths._base import Coefficients as Coefficients
from pipeline.flow_matching.paths._base import GaussianPath as GaussianPath
from pipeline.flow_matching.paths._linear import LINEAR as LINEAR
from pipeline.flow_matching.paths._linear import Linear as Linear
from pipeline.flow_matching.paths._network import network_input as network_input
from pipeline.flow_matching.paths._network import network_target as network_target
from pipeline.flow_matching.paths._network import preconditioning as preconditioning
from pipeline.flow_matching.paths._network import velocity_of as velocity_of
from pipeline.flow_matching.paths._optimal_transport import OptimalTransport as OptimalTransport
from pipeline.flow_matching.paths._spec import PATHS as PATHS
from pipeline.flow_matching.paths._spec import gaussian_path as gaussian_path
from pipeline.flow_matching.paths._variance_exploding import VarianceExploding as VarianceExploding
from pipeline.flow_matching.paths._variance_preserving import VariancePreserving as VariancePreserving
