"""Images, and the feature space that they are measured in."""

from __future__ import annotations

import codecs
import unicodedata
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pipeline.recipe.fingerprint import AddedLater, NotFingerprinted, Verifies
from pipeline.recipe.sections._base import Config, Positive, UserPath


def _as_names(value: object) -> object:
    """Classes that are called 0 to 9 may be given as numbers; in whatever order they come, they are one choice."""
    if not isinstance(value, list | tuple):
        return value
    names = [str(name) if isinstance(name, int) and not isinstance(name, bool) else name for name in value]
    if all(isinstance(name, str) for name in names):
        names = [unicodedata.normalize("NFC", name) for name in names]
    return sorted(set(names)) if all(isinstance(name, str) for name in names) else names


ClassNames = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_as_names)]


def _encoding(name: str | None) -> str | None:
    if name is None:
        return None
    try:
        if b"a/b.png".decode(name) == "a/b.png":  # no bytes to bytes, as hex; no two bytes for each, as utf-16
            return codecs.lookup(name).name
    except (LookupError, UnicodeError):
        pass
    raise ValueError(f"Python has no encoding {name!r} of names: give one such as cp932, gbk or cp866")


def _colour(name: str) -> str:
    from PIL import ImageColor

    try:
        ImageColor.getrgb(name)
    except ValueError:
        raise ValueError(f"{name!r} is no colour: give a name such as black, or #rrggbb") from None
    return name


class Expected(Config):
    """Size of a data set as networks see it: of its latents, where there is an autoencoder."""

    train: Positive = Field(description="training images")
    test: int = Field(0, ge=0, description="test images")
    channels: Positive = Field(description="channels of an image or latent")
    size: Positive = Field(description="its side")
    classes: int = Field(0, ge=0, description="number of classes")


class Data(Config):
    """Images into one image set with labels and a train/test split."""

    source: Literal["digits", "mnist", "fashion-mnist", "cifar10", "cifar100", "images"]
    path: Annotated[UserPath | None, NotFingerprinted] = Field(
        None, description="local archive or folder; its content counts"
    )
    checksum: Annotated[str | None, Verifies] = Field(
        None, pattern=r"^sha256:[0-9a-f]{64}$", description="of the archive at `path`"
    )
    size: int | None = Field(
        None, ge=4, le=1024, description="side in pixels: own images are cropped and resized, others shrink"
    )
    test_fraction: float = Field(0.2, gt=0, lt=1, description="held out where the source has no split")
    limit: Positive | None = Field(
        None, description="use at most this many images of each split, as many of each class, drawn by `seed`"
    )
    flips: bool = Field(False, description="train on mirrored images too")
    classes: Annotated[ClassNames | None, AddedLater(None)] = Field(
        None, description="use these classes alone, by name; labels are 0, 1, ... in the data set's order"
    )
    small_classes: Annotated[Literal["refuse", "drop", "drop-limited"], AddedLater("refuse")] = Field(
        "refuse",
        description="what to do with classes that have no training image or no test image; drop-limited drops those "
        "that `limit` leaves without one, and refuses others",
    )
    layout: Annotated[Literal["auto", "classes", "split", "flat", "webdataset"], AddedLater("auto")] = Field(
        "auto",
        description="meaning of the first folders: classes; train and test, with classes below; or none. webdataset: "
        "tars or folders of key.jpg with its class in key.cls",
    )
    test_list: Annotated[str | None, AddedLater(None)] = Field(
        None,
        description="text file in the source, lines of an image and its class: these images test; see docs/data.md",
    )
    expected: Annotated[Expected | None, NotFingerprinted] = Field(
        None, description="size of the data set, for estimates before it is read"
    )
    names_encoding: Annotated[str | None, AfterValidator(_encoding), AddedLater(None)] = Field(
        None, description="of names in an archive that are not marked as UTF-8; unless given cp437 in a zip"
    )
    background: Annotated[
        str, Field(pattern=r"^([a-z]+|#[0-9a-f]{6})$"), AfterValidator(_colour), AddedLater("white")
    ] = Field("white", description="colour behind transparent pixels: a name or #rrggbb")
    labels: Annotated[bool, AddedLater(True)] = Field(
        True, description="give networks the classes; without, scores may still use them"
    )
    autoencoder: Annotated[UserPath | None, NotFingerprinted] = Field(
        None, description="folder of a diffusers AutoencoderKL: train on its latents; its content counts"
    )
    seed: int = Field(
        0, ge=0, description="of the split and of `limit`; apart from the recipe's, so that all seeds share it"
    )

    @model_validator(mode="after")
    def _source_has_files(self) -> Data:
        if self.source == "images" and self.path is None:
            raise ValueError("the source 'images' reads a folder or archive: set data.path")
        if self.source == "digits" and (self.path or self.checksum or self.size):
            raise ValueError("the source 'digits' is built in: leave path, checksum and size out")
        ours = {"layout": "auto", "test_list": None, "names_encoding": None, "background": "white"}
        if self.source != "images" and any(getattr(self, name) != neutral for name, neutral in ours.items()):
            raise ValueError(f"{', '.join(ours)} are of the source 'images': leave them out for {self.source!r}")
        if self.test_list is not None and self.layout not in ("auto", "classes"):
            raise ValueError("test_list needs training images in class folders: set layout to auto or classes")
        if self.source in ("mnist", "fashion-mnist") and self.checksum and self.path is None:
            raise ValueError(f"files of {self.source} are fetched by their own checksums: leave data.checksum out")
        return self


class Reference(Config):
    """The feature space and the real statistics that every Frechet distance of a data set is measured in."""

    extractor: Literal["classifier", "inception", "pixels"] = Field(
        "classifier", description="inception is FID's; classifier is trained on the data; pixels need neither"
    )
    weights: Annotated[UserPath | None, NotFingerprinted] = Field(
        None, description="file of Inception's weights; the published ones are fetched unless given"
    )
    checksum: Annotated[str | None, AddedLater(None)] = Field(
        None, pattern=r"^sha256:[0-9a-f]{64}$", description="of `weights`, where they are not the published ones"
    )
    seed: int = Field(
        0, ge=0, description="of the classifier; apart from the recipe's, so that all seeds share one feature space"
    )

    @model_validator(mode="after")
    def _weights_are_inceptions(self) -> Reference:
        if self.extractor != "inception" and (self.weights or self.checksum):
            raise ValueError("weights and checksum are of the extractor inception: leave them out, or choose it")
        return self
