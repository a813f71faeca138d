"""Losses of a predicted velocity: `loss(answer, target, x_t, t)` is the mean over a batch, a scalar."""

from pipeline.flow_matching.losses._losses import SQUARED as SQUARED
from pipeline.flow_matching.losses._losses import Loss as Loss
from pipeline.flow_matching.losses._losses import LpipsHuber as LpipsHuber
from pipeline.flow_matching.losses._losses import PseudoHuber as PseudoHuber
from pipeline.flow_matching.losses._losses import loss_of_config as loss_of_config
from pipeline.flow_matching.losses._lpips import LPIPS as LPIPS
from pipeline.flow_matching.losses._lpips import load_lpips as load_lpips
