"""Paths from plain data, as found in a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields

from pipeline.flow_matching.paths._base import GaussianPath
from pipeline.flow_matching.paths._linear import Linear
from pipeline.flow_matching.paths._optimal_transport import OptimalTransport
from pipeline.flow_matching.paths._variance_exploding import VarianceExploding
from pipeline.flow_matching.paths._variance_preserving import VariancePreserving
from storage.errors import InputError

_PATHS: dict[str, type[GaussianPath]] = {
    "linear": Linear,
    "ot": OptimalTransport,
    "vp": VariancePreserving,
    "ve": VarianceExploding,
}

#: The kinds that `gaussian_path` knows.
PATHS = tuple(_PATHS)


def gaussian_path(spec: Mapping[str, object]) -> GaussianPath:
    """Build a path from plain data: `{"kind": "linear"}`, `{"kind": "ot", "sigma_min": 1e-4}`,
    `{"kind": "vp", "beta_min": 0.1, "beta_max": 20}`, `{"kind": "ve", "sigma_min": 0.01, "sigma_max": 50}`.

    Raises:
        InputError: unknown kind, a setting that this kind does not have, one that is missing, or a bad value.
    """
    settings = {name: value for name, value in spec.items() if name != "kind"}
    try:
        kind = _PATHS[str(spec.get("kind"))]
    except KeyError:
        raise InputError("A path has a known kind", spec.get("kind"), f"Choose among {', '.join(PATHS)}.") from None
    known = [field.name for field in fields(kind)]
    rule = f"A path of kind {spec['kind']} has the settings {', '.join(known) or 'none'}"
    unknown = sorted(settings.keys() - set(known))
    if unknown:
        raise InputError(rule, unknown, "Remove the others.")
    missing = [field.name for field in fields(kind) if field.default is MISSING and field.name not in settings]
    if missing:
        raise InputError(rule, sorted(settings), f"Give {', '.join(missing)} too.")
    return kind(**settings)
