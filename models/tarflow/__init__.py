"""TarFlow: a normalizing flow of causal transformers over image patches (Zhai et al. 2024, arXiv 2412.06329).

`TarFlow` maps images to latents in one parallel pass and knows its density; `decode` maps latents to images.
"""

from models.tarflow._calibration import calibrate
from models.tarflow._config import CONFIGS, TarFlowConfig
from models.tarflow._decoding import DecodingWork, decode
from models.tarflow._flow import TarFlow
from models.tarflow._guidance import Guidance
from models.tarflow._likelihood import bits_per_dimension, denoise
from models.tarflow._precision import full_precision
from models.tarflow._schedules import GaussSeidelJacobi, Jacobi, Schedule, Sequential, schedule_from_dict

__all__ = [
    "CONFIGS",
    "DecodingWork",
    "GaussSeidelJacobi",
    "Guidance",
    "Jacobi",
    "Schedule",
    "Sequential",
    "TarFlow",
    "TarFlowConfig",
    "bits_per_dimension",
    "calibrate",
    "decode",
    "denoise",
    "full_precision",
    "schedule_from_dict",
]
