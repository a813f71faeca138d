"""Paths from data (t = 0) to noise (t = 1), x_t = a(t) x + s(t) z, and how a network learns their velocity."""

from pipeline.paths._base import Coefficients as Coefficients
from pipeline.paths._base import GaussianPath as GaussianPath
from pipeline.paths._linear import LINEAR as LINEAR
from pipeline.paths._linear import Linear as Linear
from pipeline.paths._network import network_input as network_input
from pipeline.paths._network import network_target as network_target
from pipeline.paths._network import preconditioning as preconditioning
from pipeline.paths._network import velocity_of as velocity_of
from pipeline.paths._optimal_transport import OptimalTransport as OptimalTransport
from pipeline.paths._spec import PATHS as PATHS
from pipeline.paths._spec import gaussian_path as gaussian_path
from pipeline.paths._variance_exploding import VarianceExploding as VarianceExploding
from pipeline.paths._variance_preserving import VariancePreserving as VariancePreserving
