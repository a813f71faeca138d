"""matplotlib reads a file in the current directory and a variable when it is imported."""

import hashlib

from pipeline.reporting.pictures import png, z_diagnostics

DRAWING = """
import hashlib, torch
from flows.session.process import prepare_process; prepare_process()
from pipeline.reporting.pictures import png, z_diagnostics
print(hashlib.sha256(png(z_diagnostics(torch.arange(96.0).view(6, 1, 4, 4)))).hexdigest())
"""


def test_no_setting_of_matplotlib_reaches_our_pictures(place):
    import torch

    (place.folder / "cwd" / "matplotlibrc").write_text("text.usetex: True\nfont.size: 30\nfigure.facecolor: red\n")
    done = place.python(DRAWING, MPLBACKEND="nosuch")
    ours = png(z_diagnostics(torch.arange(96.0).view(6, 1, 4, 4)))
    assert done.stdout == f"{hashlib.sha256(ours).hexdigest()}\n", done.stderr
