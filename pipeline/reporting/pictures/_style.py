"""matplotlib as it comes, whatever the user has set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def default_style() -> Iterator[None]:
    """Draw and save with matplotlib's own defaults, so that the same numbers give the same bytes.

    The user's settings come from a matplotlibrc, in the current directory too. They would change the bytes of pictures,
    and `text.usetex` fails where there is no TeX.
    """
    import matplotlib

    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        matplotlib.rcParams["svg.hashsalt"] = "flowctl"  # otherwise names in an SVG are random
        yield
