"""A part of a stage: work of one kind, whose time is measured or estimated apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.cost.flops import Work
from pipeline.outputs.networks import NetworkConfig
from storage.checksummed_json import json_digest


@dataclass(frozen=True)
class Part:
    """Work of one kind.

    Attributes:
        name: of the part in its stage.
        amount: units of work.
        unit: of the work, such as "images".
        facts: everything but the device that its speed depends on.
        work: the counted work of one unit; None where nothing is counted.
        seconds: what is added for all units where the part is estimated: files, statistics, pictures.
        precision: of the products.
        counted: units of work in one of what the stage counts, such as the network calls of a pair.
    """

    name: str
    amount: float
    unit: str
    facts: Mapping[str, Any]
    work: Callable[[], Work] | None = None
    seconds: float = 0.0
    precision: str = "float32"
    counted: float = 1.0


def network_digest(architecture: NetworkConfig) -> str:
    """A name for all networks of one architecture. The number of classes changes a table, and no time."""
    facts = {name: value for name, value in asdict(architecture).items() if name != "classes"}
    return json_digest([type(architecture).__name__, facts])[:16]
