"""A look at a coupling's noise."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image
from torch import Tensor

from pipeline.reporting.pictures._style import default_style
from pipeline.reporting.pictures._tiles import labelled_rows

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


@default_style()
def z_diagnostics(train: Tensor, held_out: Tensor | None = None) -> Image.Image:
    """Histograms of all values with the density of N(0, 1), and the standard deviation of each pixel.

    Args:
        train: z of training images, (n, C, H, W).
        held_out: z of others, (m, C, H, W).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    named = {"training images": train, "held-out images": held_out}
    sets = {name: z.detach().cpu().numpy() for name, z in named.items() if z is not None}
    figure = Figure(figsize=(4.6 + 2.8 * len(sets), 3.2), dpi=110, layout="compressed")
    histogram, *maps = figure.subplots(1, 1 + len(sets), width_ratios=[1.6] + [1] * len(sets))

    edges = np.linspace(-5, 5, 101)
    for colour, (name, z) in zip(COLOURS, sets.items(), strict=False):
        share = np.histogram(z, edges)[0] / (z.size * np.diff(edges))  # of all values, those beyond the edges included
        histogram.stairs(share, edges, color=colour, linewidth=1.4, label=name)
    density = np.exp(-(edges**2) / 2) / math.sqrt(2 * math.pi)
    histogram.plot(edges, density, color="0.3", linestyle="--", linewidth=1.2, label="N(0, 1)")
    histogram.set(xlabel="value of z", ylabel="density", xlim=(-5, 5), ylim=(0, None))
    histogram.spines[["top", "right"]].set_visible(False)
    histogram.legend(frameon=False, fontsize="small", loc="upper left")
    histogram.set_ylim(top=1.3 * histogram.get_ylim()[1])  # room for the legend

    for axes, (name, z) in zip(maps, sets.items(), strict=True):
        spread = np.sqrt(z.astype(np.float64).var(0).mean(0))  # (H, W), over samples, then channels
        # White where the deviation is right, one colour where too narrow, another where too wide.
        picture = axes.imshow(spread, cmap="RdBu_r", vmin=0, vmax=2, interpolation="nearest")
        axes.set_title(f"std of z, {name}\n{spread.min():.2f} to {spread.max():.2f}", fontsize="medium")
        axes.set(xticks=[], yticks=[])
    figure.colorbar(picture, ax=maps, shrink=0.8)

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


_SHOWN = 20  # pairs
_WIDEST = 3.0  # standard deviations from black to white


def bank_picture(z: Tensor, x: Tensor | None = None) -> Image.Image:
    """A bank's noise: its histogram and spread (see `z_diagnostics`), and some pairs of it and images.

    Args:
        z: noise, (n, C, H, W), of about unit size.
        x: its images in [-1, 1], (n, C, H, W), in the same order.
    """
    above = z_diagnostics(z)
    if z.shape[1] not in (1, 3):  # latents, which are no pictures
        return above
    rows = [("noise z", (z[:_SHOWN].float() / _WIDEST).clamp(-1, 1))]
    if x is not None:
        rows.append(("image x", x[:_SHOWN].float().clamp(-1, 1)))
    below = labelled_rows(rows)
    canvas = Image.new("RGB", (max(above.width, below.width), above.height + below.height), "white")
    canvas.paste(above, (0, 0))
    canvas.paste(below, (0, above.height))
    return canvas
