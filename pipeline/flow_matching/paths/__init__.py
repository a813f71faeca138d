"""Paths from data (t = 0) to noise (t = 1), x_t = a(t) x + s(t) z, and how a network learns their velocity."""

from __future__ import annotations

from pipeline.flow_matching.paths._base import GaussianPath as GaussianPath
from pipeline.flow_matching.paths._diffusion import VarianceExploding as VarianceExploding
from pipeline.flow_matching.paths._diffusion import VariancePreserving as VariancePreserving
from pipeline.flow_matching.paths._network import network_input as network_input
from pipeline.flow_matching.paths._network import network_target as network_target
from pipeline.flow_matching.paths._network import preconditioning as preconditioning
from pipeline.flow_matching.paths._network import velocity_of as velocity_of
from pipeline.flow_matching.paths._straight import LINEAR as LINEAR
from pipeline.flow_matching.paths._straight import Linear
from pipeline.flow_matching.paths._straight import OptimalTransport as OptimalTransport
from pipeline.recipe import sections

_PATHS: dict[type[sections.Config], type[GaussianPath]] = {
    sections.LinearPath: Linear,
    sections.OptimalTransportPath: OptimalTransport,
    sections.VariancePreservingPath: VariancePreserving,
    sections.VarianceExplodingPath: VarianceExploding,
}


def path_of_config(config: sections.Path) -> GaussianPath:
    """The path of a recipe's section, which has validated its numbers."""
    return _PATHS[type(config)](**config.model_dump(exclude={"kind"}))
