"""Curves of a distance against the number of network calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from storage.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe & Ito's colours, which colour-blind readers can tell apart; markers say the same once more, for print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "os^Dv<>"


def curves(
    series: Mapping[str, Sequence[tuple[float, float]]],
    y: str = "Fréchet distance",
    levels: Mapping[str, float] | None = None,
) -> Figure:
    """Lines on logarithmic axes.

    Args:
        series: by name, pairs of network calls per image and what came of them, all positive.
        y: what the upright axis shows.
        levels: by name, heights of horizontal lines, such as the floor or a teacher that has no number of calls.

    Returns:
        A Matplotlib figure that no global state knows of; see its `savefig`.

    Raises:
        InputError: nothing to draw, or a number that has no logarithm.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    levels = levels or {}
    numbers = [n for pairs in series.values() for pair in pairs for n in pair] + list(levels.values())
    bad = [n for n in numbers if not 0 < n < float("inf")]
    if bad or not any(series.values()):
        raise InputError("Curves on logarithmic axes are made of positive numbers", bad[:3], "Leave the others out.")

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for i, (name, pairs) in enumerate(series.items()):
        places, heights = zip(*sorted(pairs), strict=True) if pairs else ((), ())
        colour, marker = COLOURS[i % len(COLOURS)], _MARKERS[i % len(_MARKERS)]
        axes.plot(places, heights, color=colour, marker=marker, markersize=5, linewidth=1.6, label=name)
    for i, (name, height) in enumerate(levels.items()):
        axes.axhline(height, color="0.45", linewidth=1, linestyle=("--", ":", "-.")[i % 3], label=name)
    axes.set(xscale="log", yscale="log", xlabel="network calls per image (NFE)", ylabel=y)
    # The calls that were made, not powers of ten; and plain numbers.
    axes.xaxis.set_major_locator(_ticks_at(sorted({place for pairs in series.values() for place, _ in pairs})))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(True, color="0.9", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    return figure


def _ticks_at(places: list[float]):
    """A locator with ticks at these places, but for those that would touch the one before."""
    from matplotlib.ticker import FixedLocator

    kept: list[float] = []
    for place in places:
        if not kept or place >= 1.25 * kept[-1]:
            kept.append(place)
    return FixedLocator(kept)
