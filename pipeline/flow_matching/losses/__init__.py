"""What a wrong velocity costs: `loss(answer, target, x_t, t)` is the mean over a batch, a scalar."""

from pipeline.flow_matching.losses._base import SQUARED as SQUARED
from pipeline.flow_matching.losses._base import Loss as Loss
from pipeline.flow_matching.losses._base import SquaredError as SquaredError
from pipeline.flow_matching.losses._base import make_loss as make_loss
from pipeline.flow_matching.losses._huber import PseudoHuber as PseudoHuber
from pipeline.flow_matching.losses._lpips import LPIPS as LPIPS
from pipeline.flow_matching.losses._lpips import load_lpips as load_lpips
from pipeline.flow_matching.losses._lpips_huber import LpipsHuber as LpipsHuber
