"""Training losses for reflow and distillation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pipeline.recipe.fingerprint import NotFingerprinted
from pipeline.recipe.sections._base import Config, Positive, UserPath


class _Loss(Config):
    @property
    def files(self) -> Mapping[str, Path]:
        """Files outside the store whose content counts, by field."""
        return {}

    @property
    def needs_pixels(self) -> bool:
        """Whether it compares images, and not latents."""
        return False


class SquaredError(_Loss):
    """Of the velocity, mean over dimensions."""

    kind: Literal["l2"] = "l2"


class PseudoHuber(_Loss):
    """Squared for small errors of an image, the norm for large ones (Lee et al. 2024, arXiv 2405.20320, sec. 4.2)."""

    kind: Literal["pseudo-huber"] = "pseudo-huber"
    c: float = Field(
        0.00054,
        gt=0,
        description="scale where it changes from squared to linear: a norm of c times the number of dimensions",
    )


class LpipsHuber(_Loss):
    """LPIPS of the image predicted from the velocity, and pseudo-Huber far from the noise; LPIPS alone at t = 1."""

    kind: Literal["lpips-huber"] = "lpips-huber"
    network: Literal["vgg", "alex"] = Field("vgg", description="image classifier that LPIPS compares features of")
    features: Annotated[UserPath, NotFingerprinted] = Field(
        description="weights of the image classifier, as torchvision publishes them; their content counts"
    )
    linear: Annotated[UserPath, NotFingerprinted] = Field(
        description="weights of LPIPS' linear layers, version 0.1, as published; their content counts"
    )
    size: Positive = Field(224, ge=32, description="side of the images that LPIPS compares, pixels")
    c: float = Field(0.00054, gt=0, description="of the pseudo-Huber part")

    @property
    def files(self) -> Mapping[str, Path]:
        return {"features": self.features, "linear": self.linear}

    @property
    def needs_pixels(self) -> bool:
        return True


Loss = Annotated[SquaredError | PseudoHuber | LpipsHuber, Field(discriminator="kind")]
