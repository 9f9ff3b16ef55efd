"""Numbers in cells of a file of measurements, and what is wrong with those that are none."""

import math
import re

from hwcost.errors import FitError
from hwcost.ops import BITS

#: Sizes that may be a fraction; reads is a mean.
_SHARES = ("reads", "density", "weight", "w_once", "bias_once", *BITS)

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?(nan|inf|infinity)", re.I | re.A)

#: What a cell looks like -> what is wrong with it.
_MISTAKES = (
    (re.compile(r"[-+]?\d*,\d+"), "a fraction has a point; thousands are not set apart"),
    (re.compile(r"[-+]?\d{1,3}([,_' ]\d{3})+(\.\d*)?"), "thousands are not set apart"),
    (re.compile(r"[-+.\d]+(e[-+]?\d+)?\s*[a-zµμ%].*", re.I), "{}"),
    (re.compile(r"n\.?/?a\.?|-+|\?|none|null|#.*", re.I), "leave a cell empty that has no value"),
)


def measured_number(name: str, cell: str, at: str) -> float:
    """Return a measured value, more than 0, in the unit of its column."""
    value = number(name, cell, at, "a unit stands in the header, in brackets")
    if value <= 0:
        raise FitError(f"{at}: {name!r} is {cell}; expected more than 0")
    return value


def size_number(name: str, cell: str, at: str) -> float:
    """Return a size of an op: a whole number unless it is a share or bits."""
    value = number(name, cell, at, "sizes have no unit")
    if value < 0:
        raise FitError(f"{at}: {name!r} is {cell}; expected 0 or more")
    if name not in _SHARES and value != math.floor(value):
        raise FitError(f"{at}: {name!r} is {cell}; expected a whole number")
    return value


def number(name: str, cell: str, at: str, unit: str = "") -> float:
    """Return the number in a cell.

    Args:
        unit: what the message says of a unit behind the number.
    """
    if not _NUMBER.fullmatch(cell):
        hints = [hint.format(unit) for looks, hint in _MISTAKES if looks.fullmatch(cell)]
        hint = f"; {hints[0]}" if hints else ""
        raise FitError(f"{at}: {name!r} is {cell!r}; expected a number{hint}")
    value = float(cell)
    if not math.isfinite(value):
        raise FitError(f"{at}: {name!r} is {cell!r}; leave a cell empty that has no value")
    return value
