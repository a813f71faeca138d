"""What a network that learns from pairs is punished for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pipeline.recipe.fingerprint import NotFingerprinted
from pipeline.recipe.sections._base import Config, Positive


class SquaredError(Config):
    """Of the velocity, mean over dimensions."""

    kind: Literal["l2"] = "l2"


class PseudoHuber(Config):
    """Squared for small errors of an image, the norm for large ones (Lee et al. 2024, arXiv 2405.20320, sec. 4.2)."""

    kind: Literal["pseudo-huber"] = "pseudo-huber"
    c: float = Field(0.00054, gt=0, description="where it turns: at a norm of c times the number of dimensions")


class LpipsHuber(Config):
    """LPIPS of the image that the velocity leads to, and pseudo-Huber far from the noise; LPIPS alone at t = 1."""

    kind: Literal["lpips-huber"] = "lpips-huber"
    network: Literal["vgg", "alex"] = "vgg"
    features: Annotated[Path, NotFingerprinted] = Field(
        description="weights of the image classifier, as torchvision publishes them; their content counts"
    )
    linear: Annotated[Path, NotFingerprinted] = Field(
        description="weights of LPIPS' linear layers, version 0.1, as published; their content counts"
    )
    size: Positive = Field(224, ge=32, description="side that images are resized to before they are looked at, pixels")
    c: float = Field(0.00054, gt=0, description="of the pseudo-Huber part")


Loss = Annotated[SquaredError | PseudoHuber | LpipsHuber, Field(discriminator="kind")]
