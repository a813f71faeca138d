"""When to do what costs time but no progress: checkpoints and pictures."""

from __future__ import annotations

import time

SHARE = 0.02  # of the time at most goes into each, however large the network


class Clock:
    """Due every so many seconds, but never for more than its share of the time. Used as a context while it is done."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.cost, self.spent, self.last = seconds, 0.0, 0.0, time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self.last >= max(self.seconds, self.cost / SHARE)

    def __enter__(self) -> None:
        self.began = time.monotonic()

    def __exit__(self, *error: object) -> None:
        self.last = time.monotonic()
        self.cost = self.last - self.began
        self.spent += self.cost
