"""How to invert a block: all tokens one after the other, all at once until they settle, or something between.

To invert a block is to solve x_i = z_i exp(a(x_<i)) + b(x_<i) for i = 1 .. T-1, a triangular system. Every schedule
cuts the unknown tokens into windows, solves them one after the other (Gauss-Seidel), and inside a window updates all
tokens at once, again and again (Jacobi). Windows of one token are sequential decoding; one window of all is Jacobi.

A window of n tokens is exact after n updates at the latest, as each makes at least one more token final.
"""

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

Start = Literal["latent", "zeros"]


@dataclass(frozen=True)
class _Schedule:
    kind: ClassVar[str]

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary for JSON, read back by `schedule_from_dict`."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True)
class Sequential(_Schedule):
    """Token after token: exact, with T - 1 network calls of one token each."""

    kind: ClassVar[str] = "sequential"
    tolerance: ClassVar[float] = 0.0
    max_iterations: ClassVar[int | None] = None
    start: ClassVar[Start] = "latent"

    def windows(self, tokens: int) -> list[tuple[int, int]]:
        """The windows [first, last + 1) into which this cuts the tokens 1 .. ``tokens`` - 1."""
        return [(i, i + 1) for i in range(1, tokens)]


@dataclass(frozen=True)
class Jacobi(_Schedule):
    """All tokens at once until they settle (SeJD, arXiv 2505.24791).

    Tokens that have settled, with all before them, are not computed again.

    Args:
        tolerance: a token has settled when no value of it, in any row, changed by more; in units of the block's values,
            which near the data are pixels in [-1, 1]. With 0 the result is exact.
        max_iterations: bound on the updates; None for as many as it takes.
        start: first guess, the block's input ("latent") or zero ("zeros").
    """

    tolerance: float = 1e-3
    max_iterations: int | None = None
    start: Start = "latent"
    kind: ClassVar[str] = "jacobi"

    def __post_init__(self) -> None:
        _check(self.tolerance, self.max_iterations, self.start)

    def windows(self, tokens: int) -> list[tuple[int, int]]:
        """One window of the tokens 1 .. ``tokens`` - 1."""
        return [(1, tokens)] if tokens > 1 else []


@dataclass(frozen=True)
class GaussSeidelJacobi(_Schedule):
    """Segment after segment, the tokens of one at once until they settle (GS-Jacobi, arXiv 2505.12849).

    Args:
        segments: number of segments, of equal length up to rounding.
        tolerance, max_iterations, start: as for `Jacobi`; the bound is on the updates of each segment.
    """

    segments: int
    tolerance: float = 1e-3
    max_iterations: int | None = None
    start: Start = "latent"
    kind: ClassVar[str] = "gauss-seidel-jacobi"

    def __post_init__(self) -> None:
        _check(self.tolerance, self.max_iterations, self.start)
        if self.segments < 1:
            raise ValueError(f"segments must be at least 1, got {self.segments}; 1 is Jacobi decoding")

    def windows(self, tokens: int) -> list[tuple[int, int]]:
        """The windows [first, last + 1) into which this cuts the tokens 1 .. ``tokens`` - 1."""
        segments = min(self.segments, tokens - 1)
        edges = [1 + (tokens - 1) * k // segments for k in range(segments + 1)] if segments else []
        return list(pairwise(edges))


Schedule = Sequential | Jacobi | GaussSeidelJacobi


def schedule_from_dict(fields: dict[str, Any]) -> Schedule:
    """The schedule that ``to_dict`` wrote down.

    Raises:
        ValueError: if its kind or a field is unknown.
    """
    kinds: dict[str, type[Any]] = {cls.kind: cls for cls in (Sequential, Jacobi, GaussSeidelJacobi)}
    rest = dict(fields)
    kind = rest.pop("kind", None)
    if kind not in kinds:
        raise ValueError(f"a schedule's kind must be one of {', '.join(kinds)}, got {kind!r}")
    try:
        return kinds[kind](**rest)
    except TypeError as error:
        raise ValueError(f"fields of a {kind} schedule must be its own, got {sorted(rest)}: {error}") from error


def _check(tolerance: float, max_iterations: int | None, start: str) -> None:
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be at least 0, got {tolerance}; 0 makes the result exact")
    if max_iterations is not None and max_iterations < 1:
        raise ValueError(f"max_iterations must be at least 1, got {max_iterations}; None sets no limit")
    if start not in ("latent", "zeros"):
        raise ValueError(f"start must be 'latent' or 'zeros', got {start!r}")
