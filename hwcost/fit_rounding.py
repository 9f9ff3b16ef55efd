"""Fitted values as text, with no more digits than the data support."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from hwcost.fit_identify import Estimate
from hwcost.fit_params import FitParam
from hwcost.units import parse_quantity

#: Digits of a value, at most and at least.
MOST_DIGITS, LEAST_DIGITS = 6, 2


@dataclass(frozen=True)
class Fitted:
    """A param after the fit.

    Attributes:
        text: the new value with its unit, rounded to what is known of it; empty where the file's
            value stays.
        value: in SI units.
        error: standard error, relative; None where the data do not tell.
        note: why they do not; empty where they do.
        given: names of params that keep the file's value, with which alone this value is right.
    """

    param: FitParam
    text: str
    value: float
    error: float | None
    note: str
    given: tuple[str, ...] = ()


def rounded(params: Sequence[FitParam], found: Estimate, more: int = 0) -> tuple[Fitted, ...]:
    """Return each param with its value rounded: one digit beyond the first of its error.

    Args:
        more: digits given on top of that.
    """
    made = []
    for param, known, at in zip(params, found.known, found.solution.at.tolist(), strict=True):
        error = known.error if math.isfinite(known.error) else None
        if known.kept:
            made.append(Fitted(param, "", param.start, error, known.note))
            continue
        value = param.outer(at)
        text = value_text(param, value, error, more)
        value = float(parse_quantity(text).value)
        made.append(Fitted(param, text, value, error, known.note, known.given))
    return tuple(made)


def value_text(param: FitParam, value: float, error: float | None, more: int = 0) -> str:
    """Return a value with the param's unit, rounded to its relative error.

    Without one it is a bound, which is given in full, or hardly known.
    """
    if value in (param.low, param.high):
        return _with_unit(f"{value / param.scale:.12g}", param)
    digits = LEAST_DIGITS if error is None else digits_for(error)
    text = _with_unit(plain(value / param.scale, digits + more), param)
    inside = Fraction(param.low) <= parse_quantity(text).value <= Fraction(param.high)
    return text if inside else _with_unit(f"{value / param.scale:.12g}", param)


def digits_for(error: float) -> int:
    """Return the significant digits of a value whose relative error is known.

    One more than the error makes certain: params that belong together are known better together
    than alone.
    """
    certain = math.ceil(-math.log10(max(error, 1e-9)))
    return min(max(certain + 1, LEAST_DIGITS), MOST_DIGITS)


def plain(value: float, digits: int) -> str:
    """Return a number with so many significant digits, without an exponent where it is near 1."""
    text = f"{value:.{digits}g}"
    if "e" not in text:
        return text
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{float(text):.{max(places, 0)}f}" if -6 <= math.log10(abs(value)) < 9 else text


def _with_unit(number: str, param: FitParam) -> str:
    return f"{number} {param.unit}" if param.unit else number
