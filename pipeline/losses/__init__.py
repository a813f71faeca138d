"""What a wrong velocity costs: `loss(answer, target, x_t, t)` is the mean over a batch, a scalar."""

from pipeline.losses._base import Loss as Loss
from pipeline.losses._choose import make_loss as make_loss
from pipeline.losses._huber import PseudoHuber as PseudoHuber
from pipeline.losses._lpips import LPIPS as LPIPS
from pipeline.losses._lpips import load_lpips as load_lpips
from pipeline.losses._lpips_huber import LpipsHuber as LpipsHuber
from pipeline.losses._squared import SQUARED as SQUARED
from pipeline.losses._squared import SquaredError as SquaredError
