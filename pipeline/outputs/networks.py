"""Networks of artifacts: built from a stage's config and the image set's shape, stored as safetensors and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast, overload

import torch
from pydantic import TypeAdapter
from torch import nn

from models.dit import DiT, DiTConfig
from models.load import KINDS, NETWORK, WEIGHTS, frozen, network_of
from models.tarflow import Schedule, Sequential, TarFlow, TarFlowConfig, schedule_from_dict
from models.unet import UNet, UNetConfig
from pipeline.flow_matching.paths import LINEAR, GaussianPath, path_of_config
from pipeline.outputs.tensorfile import write_tensors
from pipeline.recipe import sections as configs
from storage.artifact import Artifact
from storage.atomic import write_json
from storage.errors import MissingError, RecipeError, reading

BEST = "best"  # name of the average of the least score while the network trained
NetworkConfig = TarFlowConfig | UNetConfig | DiTConfig
C = TypeVar("C", bound=NetworkConfig)


class Shape(Protocol):
    """The part of an image set that networks depend on."""

    @property
    def channels(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def classes(self) -> Sequence[str] | None: ...


def teacher_architecture(config: configs.Teacher, images: Shape) -> TarFlowConfig:
    """The TarFlow for these images. Raises RecipeError if its numbers do not fit them."""
    return _shaped(
        "teacher",
        TarFlowConfig,
        channels=images.channels,
        size=images.size,
        patch=config.patch,
        width=config.width,
        blocks=config.blocks,
        layers=config.layers,
        head_dim=config.head_dim,
        dropout=config.dropout,
        volume_preserving=config.volume_preserving,
        log_scale_bound=config.log_scale_bound,
        noise_std=None if config.noise_levels is None else config.noise_std,
        classes=len(images.classes or ()),
    )


def student_architecture(config: configs.Student, images: Shape) -> UNetConfig | DiTConfig:
    """The velocity network for these images. Raises RecipeError if its numbers do not fit them."""
    kind: type[UNetConfig | DiTConfig] = KINDS[config.network.kind][1]
    objective, average = config.objective, {}
    if isinstance(objective, configs.MeanFlow):
        average = {"interval": True, "time_scale": objective.time_scale}
    return _shaped(
        "student.network",
        kind,
        channels=images.channels,
        size=images.size,
        classes=len(images.classes or ()),
        condition_channels=images.channels if config.condition else 0,
        **config.network.model_dump(exclude={"kind"}),
        **average,
    )


def _shaped(section: str, kind: type[C], **fields: Any) -> C:
    try:
        return kind(**fields)
    except ValueError as error:
        value, remedy = f"{fields['size']} x {fields['size']}: {error}", f"Change {section}, or data.size"
        raise RecipeError(f"The section {section} must fit the images", value, remedy) from None


@overload
def build(shape: TarFlowConfig, seed: int) -> TarFlow: ...


@overload
def build(shape: UNetConfig | DiTConfig, seed: int) -> UNet | DiT: ...


def build(shape: NetworkConfig, seed: int) -> nn.Module:
    """A fresh network, its weights drawn from `seed`."""
    torch.manual_seed(seed)
    return next(network for network, kind in KINDS.values() if isinstance(shape, kind))(shape)


def save_network(network: nn.Module, folder: Path, averages: Mapping[str, nn.Module] | None = None) -> None:
    """Write a network's weights and shape into an artifact's payload, and further averages of the weights by name."""
    assert isinstance(network, TarFlow | UNet | DiT)
    kind = next(name for name, (network_type, _) in KINDS.items() if isinstance(network, network_type))
    modules: list[tuple[str | None, nn.Module]] = [(None, network), *(averages or {}).items()]
    for name, module in modules:
        write_tensors(folder / weights_file(name), module.state_dict())
    write_json(folder / NETWORK, {"kind": kind, **asdict(network.config)})


def weights_file(average: str | None) -> str:
    """The file of an average of the weights in an artifact; None is the first average."""
    return WEIGHTS if average is None else f"weights-{average}.safetensors"


def stored_name(artifact: Artifact, average: str | None) -> str | None:
    """The name of an average in its artifact: None for the first, which protocols name too."""
    return None if average is None or average == average_in_words(artifact) else average


def load_network(artifact: Artifact, device: torch.device | str = "cpu", average: str | None = None) -> nn.Module:
    """The artifact's network in eval mode, with the weights of its first average or of another one, by name; protocols
    name the first too.

    Raises:
        MissingError: there is no such average.
        DamageError: its files do not fit each other.
    """
    average = stored_name(artifact, average)
    paths = [record.path for record in artifact.files]
    if weights_file(average) not in paths and average is not None:
        there = [path[len("weights-") : -len(".safetensors")] for path in paths if path.startswith("weights-")]
        raise MissingError(
            "An average is one that training.averages names, or best where the student has quality",
            average,
            f"There are: {', '.join(there) or 'none but the first'}",
        )
    remedy = "`flowctl verify` names the damaged file; `flowctl verify --repair` reruns its stage"
    with reading(f"the network of {artifact.root}", remedy):
        network = network_of(artifact.path(NETWORK), artifact.path(weights_file(average)))
    return frozen(network, device)


def average_in_words(artifact: Artifact, average: str | None = None) -> str:
    """An average of the weights as protocols state it; the best one by the scores that it was chosen by.

    None is the first average; of a teacher used with its best weights it is these.
    """
    best = average == BEST or (average is None and artifact.config.get("quality", {}).get("use") == BEST)
    if best:
        return artifact.metrics["quality"]["chosen_by"]
    return average or configs.HalfLife(images=artifact.config["training"]["ema"]).name


def load_flow(artifact: Artifact, device: torch.device | str = "cpu") -> TarFlow:
    """The network of a teacher's artifact; see `load_network`."""
    return cast(TarFlow, load_network(artifact, device))


def schedules_of(artifact: Artifact, average: str | None = None) -> list[Schedule]:
    """How a teacher's blocks are decoded, from noise to data: as calibrated, which was with the weights of its first
    average. Others are decoded exactly."""
    schedules = [schedule_from_dict(fields) for fields in artifact.metrics["schedule"]]
    return schedules if stored_name(artifact, average) is None else [Sequential()] * len(schedules)


def path_of(artifact: Artifact) -> GaussianPath:
    """The path that a student's velocity belongs to. Pairs of a flow lie on straight lines."""
    config = artifact.config.get("path")
    return LINEAR if config is None else path_of_config(TypeAdapter(configs.Path).validate_python(config))
