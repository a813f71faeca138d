"""Into a latent space and back, by an autoencoder in diffusers' format (Rombach et al. 2022, arXiv 2112.10752).

    z = (m(x) - shift) * scale        x = D(z / scale + shift)

m is the mean of q(z | x): the latent of an image without the sampling noise of the autoencoder's training.
Scale and shift come with the autoencoder; they make latents of about unit variance (section 4.3.2 and appendix D.1).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.data.latent_space import REMEDY, RULE, LatentSpace, read_config, unreadable
from storage.errors import DataError, UsageError

# Pixels encoded or decoded at once. The shape of a product decides how it rounds, so this follows from the images
# alone. At a network's full resolution of 128 channels it is 0.27 GB.
BATCH_PIXELS = 2**19


class Autoencoder:
    """A frozen AutoencoderKL with its scale and shift.

    Attributes:
        space: sizes of its images and latents.
    """

    def __init__(self, network: Any, device: torch.device) -> None:
        config = network.config
        self.network = network.to(device).eval().requires_grad_(False)
        self.device = device
        self.space = LatentSpace.of(config)
        # Some autoencoders have one number for all channels, some one for each.
        per_channel = config.get("latents_mean"), config.get("latents_std")
        mean = config.get("shift_factor") or 0.0 if per_channel[0] is None else per_channel[0]
        std = 1.0 if per_channel[1] is None else per_channel[1]
        self._shift = torch.tensor(mean, device=device).view(-1, 1, 1)
        self._scale = config.scaling_factor / torch.tensor(std, device=device).view(-1, 1, 1)

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> Autoencoder:
        """Read config.json and the weights, in float32. Nothing is fetched, and nothing is unpickled.

        Raises UsageError if diffusers is not installed, DataError if the folder holds something else or not all of it.
        """
        require_library()
        from diffusers import AutoencoderKL

        read_config(folder)
        try:
            network, info = AutoencoderKL.from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False,
                torch_dtype=torch.float32, output_loading_info=True)  # fmt: skip
        except Exception as error:  # whatever diffusers and safetensors raise
            raise unreadable(folder, error) from error
        wrong = [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]]
        if wrong:  # diffusers would use random weights
            raise DataError(RULE, f"{folder}: weights that do not fit: {wrong[:3]} of {len(wrong)}", REMEDY)
        return cls(network, torch.device(device))

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """(B, C, S, S) in [-1, 1] to latents (B, c, s, s), both float32, the latter on the autoencoder's device."""
        pieces = x.split(batch(x.shape[-1]))
        means = [self.network.encode(piece.to(self.device)).latent_dist.mean for piece in pieces]
        return (torch.cat(means) - self._shift) * self._scale

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """(B, c, s, s) to (B, C, S, S), nominally in [-1, 1], both float32, the latter on the autoencoder's device."""
        pieces = (z.to(self.device) / self._scale + self._shift).split(batch(z.shape[-1] * self.space.factor))
        return torch.cat([self.network.decode(piece).sample for piece in pieces])


def batch(size: int) -> int:
    """The number of images of this side, in pixels, that are encoded or decoded at once."""
    return max(1, BATCH_PIXELS // size**2)


def require_library() -> None:
    """Raise UsageError unless diffusers can be imported."""
    if importlib.util.find_spec("diffusers") is None:
        remedy = "Install the extra: pip install -e '.[latents]' in the project's folder."
        raise UsageError("data.autoencoder needs the package diffusers", "not installed", remedy)
