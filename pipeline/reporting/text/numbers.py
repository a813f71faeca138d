"""Numbers as a reader sees them: rounded half up to stated digits, never cut off."""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal

MINUS = "−"


def fixed(value: float, digits: int) -> str:
    """`value` with this number of decimals, halves away from zero: 2.675 to two digits is 2.68.

    The decimal that is rounded is the shortest one that names the float, as a reader expects.
    """
    if not math.isfinite(value):
        return str(value)
    rounded = Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP)
    text = f"{abs(rounded):,f}"
    return (MINUS if rounded < 0 else "") + text


def significant(value: float, digits: int = 3) -> str:
    """`value` with this number of significant digits; powers of ten only for very large or small numbers."""
    if value == 0 or not math.isfinite(value):
        return fixed(value, 0)
    exponent = math.floor(math.log10(abs(value)))
    if float(fixed(abs(value) / 10.0**exponent, digits - 1)) >= 10:  # 9.996 has one digit more before the point
        exponent += 1
    if exponent < -4:
        return f"{fixed(value / 10.0**exponent, digits - 1)}e{exponent}".replace("e-", f"e{MINUS}")
    return fixed(value, max(0, digits - 1 - exponent))


def digits_for(values: Iterable[float]) -> int:
    """Decimals for a whole column, so that points align: the smallest keeps two significant digits; at least one."""
    sizes = [abs(value) for value in values if value and math.isfinite(value)]
    return max(1, 1 - math.floor(math.log10(min(sizes)))) if sizes else 1


def digits_with_errors(values: Iterable[float], errors: Iterable[float]) -> int:
    """As `digits_for`, with a digit at least of the smallest standard error."""
    sizes = [error for error in errors if error > 0 and math.isfinite(error)]
    return max([digits_for(values), *(-math.floor(math.log10(min(sizes))) for _ in sizes[:1])])


def count(value: float) -> str:
    """A whole number with its thousands apart; a mean number of calls keeps one decimal."""
    return fixed(value, 0 if float(value).is_integer() else 1)


def calls(nfe: float) -> str:
    """'1 network call', '2 network calls'."""
    return f"{count(nfe)} network call" + ("" if nfe == 1 else "s")


def duration(seconds: float) -> str:
    """A wall time in the two units that matter; one that a clock's correction made negative is 0."""
    seconds = max(0.0, seconds)
    if seconds < 10:
        return f"{fixed(seconds, 1)} s"
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = (whole + 30) // 60
    if minutes < 100 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = (minutes + 30) // 60
    return f"{count(hours // 24)} days {hours % 24} h"


def plain(value: object) -> str:
    """Any recorded fact in words: yes and no, numbers with thousands apart, lists with commas."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value)
    if isinstance(value, float):
        return f"{value:g}" if math.isfinite(value) else str(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(item) for item in value)
    if isinstance(value, dict):
        return "; ".join(f"{key} {plain(item)}" for key, item in value.items())
    return str(value)
