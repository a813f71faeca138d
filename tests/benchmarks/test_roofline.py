"""The roofline's counts: a token's FLOPs and bytes are those of the block's products, keys and values."""

import pytest
import torch

from benchmarks.roofline import MIDDLE, token, token_bytes
from benchmarks.teacher import random_pair
from models.tarflow import TarFlowConfig
from pipeline.cost.flops import counted

CONFIG = TarFlowConfig(channels=1, size=32, patch=2, width=32, blocks=1, layers=2, head_dim=16, log_scale_bound=None)


@pytest.mark.parametrize("by_token", [True, False])
@pytest.mark.parametrize(("rows", "slices"), [(1, 1), (40, 2)])
@torch.no_grad()
def test_a_token_is_counted_in_full(monkeypatch, rows, slices, by_token):
    monkeypatch.setattr("benchmarks.roofline.reads_tokens", lambda block, rows: by_token)
    ours, _ = random_pair(CONFIG, torch.device("cpu"))
    products = sum(m.weight.numel() for m in ours.modules() if isinstance(m, torch.nn.Linear))
    cache = 2 * CONFIG.layers * rows * MIDDLE * CONFIG.width
    assert token_bytes(CONFIG, rows) == 4 * (slices * products + cache)
    assert counted(token(ours.eval(), rows)).flops == 2 * rows * products + 2 * cache
