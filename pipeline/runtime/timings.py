"""The time that the parts of a stage take, measured where they run. `pipeline.cost.rates` stores them as rates."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Timings:
    """Sums of work and seconds by part. A part is a name of `pipeline.cost.parts`, the work is in its unit.

    Of several ranks the first one's count, and the work of a part is that of all ranks.
    """

    def __init__(self) -> None:
        self.parts: dict[str, tuple[float, float]] = {}

    def add(self, part: str, amount: float, seconds: float) -> None:
        """Add `amount` units of work that took `seconds` of wall time."""
        before = self.parts.get(part, (0.0, 0.0))
        self.parts[part] = (before[0] + amount, before[1] + seconds)

    @contextmanager
    def measure(self, part: str, amount: float) -> Iterator[None]:
        """Add the time of the block, if it ends without an error."""
        began = time.monotonic()
        yield
        self.add(part, amount, time.monotonic() - began)

    def plain(self) -> dict[str, list[float]]:
        """As plain data, for another process."""
        return {part: list(sums) for part, sums in self.parts.items()}

    def take(self, parts: Mapping[str, tuple[float, float]]) -> None:
        """The reverse of `plain`: those that another process measured."""
        self.parts = {part: (float(amount), float(seconds)) for part, (amount, seconds) in parts.items()}
