"""The diffusion transformer as a velocity network ``v = g(x, t, label, condition)``.

DiT: Peebles & Xie 2022, arXiv 2212.09748. The same network on velocities, SiT: Ma et al. 2024, arXiv 2401.08740.
"""

from models.dit._config import CONFIGS, DiTConfig
from models.dit._network import DiT

__all__ = ["CONFIGS", "DiT", "DiTConfig"]
