import io
import sys
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
import torch

from pipeline.reporting.pictures import curves, png, z_diagnostics
from storage.errors import InputError

SERIES = {"NFM": [(1, 91), (2, 7.6), (31, 5.9)], "independent": [(1, 87), (2, 20.5), (31, 2.0)]}


def texts(figure):
    """All that is written in a figure."""
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(file, format="svg")
    return " ".join(ElementTree.fromstring(file.getvalue()).itertext()).split()


def test_curves_say_what_they_show():
    said = texts(curves(SERIES, levels={"floor": 8.5}))
    assert {"NFM", "independent", "floor", "31", "(NFE)", "Fréchet"} <= set(said)


def test_no_global_state():
    sys.modules.pop("matplotlib.pyplot", None)  # another test's
    curves(SERIES).savefig(io.BytesIO())
    z_diagnostics(torch.randn(20, 1, 4, 4))
    assert "matplotlib.pyplot" not in sys.modules


@pytest.mark.parametrize("series", [{}, {"NFM": []}, {"NFM": [(1, 0.0)]}, {"NFM": [(1, float("nan"))]}])
def test_bad_curves(series):
    with pytest.raises(InputError):
        curves(series)


@pytest.mark.parametrize("channels", [1, 3])
def test_noise_picture(channels):
    z = torch.randn(200, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    picture = z_diagnostics(z, 1.4 * z[:50])
    assert picture.mode == "RGB" and picture.width > picture.height > 100
    assert png(picture) == png(z_diagnostics(z, 1.4 * z[:50]))
    assert np.asarray(z_diagnostics(z)).std() > 5
