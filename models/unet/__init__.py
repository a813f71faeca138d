"""The ADM U-Net as a velocity network ``v = g(x, t, label)`` (Dhariwal & Nichol 2021, arXiv 2105.05233)."""

from models.unet._config import CONFIGS, UNetConfig
from models.unet._network import UNet

__all__ = ["CONFIGS", "UNet", "UNetConfig"]
