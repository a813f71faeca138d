"""When to write checkpoints and pictures, which cost time."""

from __future__ import annotations

import time

TIME_SHARE = 0.02  # of the training time at most, for any size of network


class Clock:
    """Due every `seconds`, or less often to stay within `TIME_SHARE`. The work is done inside its context."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.cost, self.spent, self.last = seconds, 0.0, 0.0, time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self.last >= max(self.seconds, self.cost / TIME_SHARE)

    def __enter__(self) -> None:
        self.start = time.monotonic()

    def __exit__(self, *error: object) -> None:
        self.last = time.monotonic()
        self.cost = self.last - self.start
        self.spent += self.cost
