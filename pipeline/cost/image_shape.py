"""The shape and number of a data set's images, before or after they are read: what networks and times depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.data.latent_space import latent_space
from pipeline.engine.dag import IMAGES, Node
from pipeline.recipe import sections as configs

# (rows, held-out rows, channels, size, classes) of sources, before they are read. A folder of images is measured by the
# data stage.
_SOURCES = {
    "digits": (1438, 359, 1, 8, 10),
    "mnist": (60_000, 10_000, 1, 28, 10),
    "fashion-mnist": (60_000, 10_000, 1, 28, 10),
    "cifar10": (50_000, 10_000, 3, 32, 10),
    "cifar100": (50_000, 10_000, 3, 32, 100),
}


@dataclass(frozen=True)
class ImageShape:
    """The part of an image set that networks and times depend on. `rows` counts mirror images too, `test` does not."""

    rows: int
    test: int
    channels: int
    size: int
    classes: tuple[str, ...]
    pixels: tuple[int, int] | None = None  # channels and size of the images, where these are latents

    @property
    def values(self) -> int:
        return self.channels * self.size**2


def data_of(node: Node) -> configs.Data:
    """The settings of the images that a stage makes or reads."""
    data = (node if node.name in IMAGES else node.inputs["data"]).config
    assert isinstance(data, configs.Data)
    return data


def real_images(node: Node, shape: ImageShape) -> ImageShape:
    """The data as pixels, each image once: what files hold, and what a stage that judges images sees."""
    data = data_of(node)
    channels, size = shape.pixels or (shape.channels, shape.size)
    return replace(shape, rows=shape.rows // (2 if data.flips else 1), channels=channels, size=size, pixels=None)


def image_shape(config: configs.Data, measured: Mapping[str, Any] | None) -> ImageShape | None:
    """The images' shape, from the metrics of their artifact or from what is published of the source; else None."""
    flips = 2 if config.flips else 1
    if measured is not None:
        return ImageShape(
            measured["train"] * flips,
            measured["test"],
            measured["channels"],
            measured["size"],
            tuple(measured["classes"] or ()),
            tuple(measured["pixels"]) if measured.get("pixels") else None,
        )
    space = None if config.autoencoder is None else latent_space(config.autoencoder)
    if (expected := config.expected) is not None:
        rows, test, channels, size = expected.train, expected.test, expected.channels, expected.size
        classes = expected.classes
        pixels = None if space is None else (space.channels, size * space.factor)
    elif config.source not in _SOURCES or config.classes is not None:
        return None  # the data stage counts and measures them
    else:
        rows, test, channels, side, classes = _SOURCES[config.source]
        size, pixels = config.size or side, None
        if space is not None:
            pixels = channels, size
            channels, size, _ = space.latent_shape(*pixels)
    return ImageShape(
        min(rows, config.limit or rows) * flips,
        min(test, config.limit or test),
        channels,
        size,
        ("",) * classes * config.labels,
        pixels,
    )
