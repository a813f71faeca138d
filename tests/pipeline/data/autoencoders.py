"""Autoencoders small enough for a test, with random weights, saved by diffusers itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def make_autoencoder(folder: Path, channels: int = 1, seed: int = 0, **changes: Any):
    """Save one to `folder` and return it: latents of 4 channels and half the size."""
    from diffusers import AutoencoderKL

    shape = {
        "in_channels": channels,
        "out_channels": channels,
        "latent_channels": 4,
        "block_out_channels": (8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 4,
        "scaling_factor": 4.0,
        "shift_factor": 0.1,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = AutoencoderKL(**{**shape, **changes}).eval()
    network.save_pretrained(folder)
    return network
