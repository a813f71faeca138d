import sys

import matplotlib
import numpy as np
import pytest
import torch

from pipeline.reporting.pictures import png, z_diagnostics


def test_no_global_state():
    sys.modules.pop("matplotlib.pyplot", None)  # another test's
    z_diagnostics(torch.randn(20, 1, 4, 4))
    assert "matplotlib.pyplot" not in sys.modules


def test_the_users_style_changes_no_byte():
    z = torch.randn(20, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    plain = png(z_diagnostics(z))
    with matplotlib.rc_context({"font.size": 30, "text.usetex": True, "figure.facecolor": "red"}):
        assert png(z_diagnostics(z)) == plain
        assert matplotlib.rcParams["font.size"] == 30  # theirs is given back


@pytest.mark.parametrize("channels", [1, 3])
def test_noise_picture(channels):
    z = torch.randn(200, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    picture = z_diagnostics(z, 1.4 * z[:50])
    assert picture.mode == "RGB" and picture.width > picture.height > 100
    assert png(picture) == png(z_diagnostics(z, 1.4 * z[:50]))
    assert np.asarray(z_diagnostics(z)).std() > 5
