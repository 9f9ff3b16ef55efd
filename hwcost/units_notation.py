"""Numbers for people: engineering notation, binary units for bytes."""

import math
import re
from decimal import Decimal
from fractions import Fraction

_POWERS = {"a": -6, "f": -5, "p": -4, "n": -3, "u": -2, "m": -1, "": 0} | {
    prefix: power for power, prefix in enumerate("kMGTPE", 1)
}
_PREFIX_OF = {power: prefix for prefix, power in _POWERS.items()}
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
#: Symbol -> whether prefixes below 1 make sense; longer symbols first.
_SYMBOLS = {"cycle": False, "MAC": False, "bit": False, "op": False, "Hz": True} | {
    "B": False,
    "s": True,
    "J": True,
    "W": True,
}


def engineering(value: float, unit: str, digits: int = 3) -> str:
    """Return a value for people: ``engineering(0.0125, "s")`` is ``"12.5 ms"``.

    Bytes come in binary units (``"48 KiB"``), plain numbers with a bare prefix (``"12.5 M"``),
    a compound unit with the prefix on its first factor; NaN is ``"-"``.

    Args:
        value: a number in ``unit``.
        unit: such as ``"s"``, ``"mJ"``, ``"W*cycle"``, or ``"1"`` for a plain number.
        digits: significant ones.
    """
    value = float(value)
    if math.isnan(value):
        return "-"
    head = re.match(r"[A-Za-zµμ]*", unit)
    prefix, symbol = _split(head.group() if head else "")
    rest = "" if unit == "1" else unit[len(prefix + symbol) :]
    if math.isinf(value):
        return f"{value} {unit}"
    if symbol == "B" and not rest:
        return _binary(value * _scale(prefix), digits)
    if (symbol and symbol not in _SYMBOLS) or rest[:1] in ("1", "^", "%"):
        return f"{_plain(Decimal(value), digits)} {unit}"
    return _decimal(value * _scale(prefix), symbol, rest, digits)


def _split(name: str) -> tuple[str, str]:
    """``"mJ"`` as ``("m", "J")``; a name without a known symbol is a symbol itself."""
    for symbol in _SYMBOLS:
        prefix = name.removesuffix(symbol).replace("µ", "u").replace("μ", "u")
        if name.endswith(symbol) and (prefix in _POWERS or prefix in _BINARY):
            return prefix, symbol
    return "", name


def _scale(prefix: str) -> float:
    if prefix in _POWERS:
        return float(Fraction(1000) ** _POWERS[prefix])
    return float(1024 ** _BINARY.index(prefix))


def _decimal(value: float, symbol: str, rest: str, digits: int) -> str:
    rounded = Decimal(f"{value:.{digits - 1}e}")
    power = rounded.adjusted() // 3 if rounded else 0
    if power < 0 and not _SYMBOLS.get(symbol, False):
        power = 0
    if power not in _PREFIX_OF:
        return f"{value:.{digits}g} {symbol}{rest}".rstrip()
    number = _plain(rounded.scaleb(-3 * power), digits)
    return f"{number} {_PREFIX_OF[power]}{symbol}{rest}".rstrip()


def _binary(value: float, digits: int) -> str:
    power, number = 0, _plain(Decimal(value), digits)
    while abs(float(number)) >= 1024 and power < len(_BINARY) - 1:
        power, value = power + 1, value / 1024
        number = _plain(Decimal(value), digits)
    return f"{number} {_BINARY[power]}B"


def _plain(number: Decimal, digits: int) -> str:
    """The number without an exponent where it is near 1; digits before the point are kept."""
    if number == 0:
        return "0"
    places = max(0, digits - 1 - number.adjusted())
    if places > digits + 3 or number.adjusted() > 12:
        return f"{float(number):.{digits}g}"
    text = f"{number:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
