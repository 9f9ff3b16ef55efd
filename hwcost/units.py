"""Quantities with units: ``"24.96 mW"`` becomes an exact number of SI base units and a dimension.

The base dimensions are s, J, B, cycle and op, so the registry is our own: in pint's default one
a cycle is 2*pi rad. A multiply-accumulate is one op, a hertz is one cycle per second. A text is
taken apart by a small grammar here, and only single names reach pint.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from hwcost.errors import UnitError, did_you_mean
from hwcost.units_notation import engineering as engineering

if TYPE_CHECKING:
    import pint
    from pint.facets.plain import PlainUnit

BASES = ("s", "J", "B", "cycle", "op")


@dataclass(frozen=True)
class Dimension:
    """Exponents of the base dimensions, in the order of ``BASES``."""

    exponents: tuple[Fraction, ...]

    @classmethod
    def none(cls) -> "Dimension":
        """Return the dimension of a plain number."""
        return cls((Fraction(0),) * len(BASES))

    @classmethod
    def of(cls, base: str) -> "Dimension":
        """Return a base dimension by name."""
        return cls(tuple(Fraction(base == other) for other in BASES))

    def __mul__(self, other: "Dimension") -> "Dimension":
        return Dimension(tuple(map(Fraction.__add__, self.exponents, other.exponents)))

    def __truediv__(self, other: "Dimension") -> "Dimension":
        return Dimension(tuple(map(Fraction.__sub__, self.exponents, other.exponents)))

    def __pow__(self, exponent: Fraction | int) -> "Dimension":
        return Dimension(tuple(e * exponent for e in self.exponents))

    def __str__(self) -> str:
        powers = list(zip(BASES, self.exponents, strict=True))
        above = "*".join(base + _power(e) for base, e in powers if e > 0)
        below = "".join("/" + base + _power(-e) for base, e in powers if e < 0)
        return (above or "1") + below

    @property
    def is_count(self) -> bool:
        """Whether neither seconds nor joules are in it: bytes, cycles, ops and their ratios."""
        return self.exponents[BASES.index("s")] == self.exponents[BASES.index("J")] == 0


def _power(exponent: Fraction) -> str:
    if exponent == 1:
        return ""
    return f"^{exponent}" if exponent.denominator == 1 else f"^({exponent})"


@dataclass(frozen=True)
class Quantity:
    """An exact number of SI base units, its dimension, and the text that it was read from."""

    value: Fraction
    dimension: Dimension
    text: str


_PREFIXES = {
    "atto": ("1e-18", "a"),
    "femto": ("1e-15", "f"),
    "pico": ("1e-12", "p"),
    "nano": ("1e-9", "n"),
    "micro": ("1e-6", "u = µ- = μ"),
    "milli": ("1e-3", "m"),
    "kilo": ("1e3", "k"),
    "mega": ("1e6", "M"),
    "giga": ("1e9", "G"),
    "tera": ("1e12", "T"),
    "peta": ("1e15", "P"),
    "exa": ("1e18", "E"),
    "kibi": ("1024", "Ki"),
    "mebi": (str(2**20), "Mi"),
    "gibi": (str(2**30), "Gi"),
    "tebi": (str(2**40), "Ti"),
    "pebi": (str(2**50), "Pi"),
    "exbi": (str(2**60), "Ei"),
}
_UNITS = (
    "second = [time] = s = sec",
    "joule = [energy] = J",
    "byte = [information] = B",
    "cycle = [cycle]",
    "op = [operation] = op = MAC = mac",
    "ampere = [current] = A",
    "minute = 60 * second = min",
    "hour = 3600 * second = h",
    "watt = joule / second = W",
    "volt = watt / ampere = V",
    "watthour = 3600 * joule = Wh",
    "hertz = cycle / second = Hz",
    "bit = byte / 8",
    "percent = 0.01",
)
_BASE_OF = {
    "[time]": "s",
    "[energy]": "J",
    "[information]": "B",
    "[cycle]": "cycle",
    "[operation]": "op",
}
_COUNTS = ("byte", "bit", "cycle", "op")

#: Unit names that are refused with a reason: they mean different things to different people.
_AMBIGUOUS = (
    ("[kKMGTP]?(?:flop|FLOP|Flop)[sS]?", "flop is ambiguous, 1 MAC = 1 op"),
    (r"([kMGTP]?)OPS", r"write '\1op/s', where 1 op is one multiply-accumulate"),
    ("KB", "write 'kB' (1000 B) or 'KiB' (1024 B)"),
    ("[kK]bp?s?", "write 'kbit' for bits or 'kB' for bytes, and '/s' for a rate"),
    ("([MG])bp?s?", r"write '\1bit' for bits or '\1B' for bytes, and '/s' for a rate"),
    (r"([kMG]?)Bps", r"write '\1B/s'"),
)
#: Names to suggest, the likelier of two that differ only in case first.
_USUAL = (
    *("s", "ms", "us", "ns", "ps", "min", "h", "J", "mJ", "uJ", "nJ", "pJ", "fJ", "kJ", "Wh"),
    *("W", "mW", "uW", "nW", "kW", "Hz", "kHz", "MHz", "GHz", "V", "mV", "A", "mA", "uA", "%"),
    *("B", "kB", "MB", "GB", "KiB", "MiB", "GiB", "bit", "kbit", "Mbit", "Gbit", "percent"),
    *("cycle", "cycles", "kcycle", "Mcycle", "op", "ops", "kop", "Mop", "Gop", "Top"),
    *("MAC", "MACs", "kMAC", "MMAC", "GMAC", "second", "joule", "watt", "byte", "hertz"),
)

_NUMBER = re.compile(r"([+-]?)(\d+\.?\d*|\.\d+)(?:[eE]([+-]?\d{1,6}))?", re.ASCII)
_TOKEN = re.compile(r"\s*(?:(\*\*|\^)\s*([+-]?\d)(?!\d)|([A-Za-zµμ%]{1,30})|([*·/()])|(1)(?=\s*/))")
_LONGEST, _LARGEST_EXPONENT, _DEEPEST = 100, 60, 5


def parse_quantity(text: str | int | float) -> Quantity:
    """Return the quantity that a text such as ``"12.5 ms"`` or ``"2 pJ/op"`` stands for.

    A number without a unit is dimensionless; decimals are exact.

    Raises:
        UnitError: no finite number is there, or the unit is unknown.
    """
    text = _checked(text)
    number = _NUMBER.match(text)
    if number is None:
        raise UnitError(f"{text!r} is not a number with a unit, such as '12.5 ms'")
    sign, digits, exponent = number.groups()
    if abs(int(exponent or 0)) > _LARGEST_EXPONENT:
        raise UnitError(f"{text!r} is out of range; exponents go to {_LARGEST_EXPONENT}")
    value = Fraction(f"{sign}{digits}") * Fraction(10) ** int(exponent or 0)
    unit = text[number.end() :].strip()
    if not unit:
        return Quantity(value, Dimension.none(), text)
    scale, dimension = _measured(unit, text)
    return Quantity(value * scale, dimension, text)


def parse_unit(text: str | int | float) -> Quantity:
    """Return a unit such as ``"op/cycle"``: its scale to SI as value; ``"1"`` is a plain number.

    Raises:
        UnitError: the unit is unknown, or a number stands before it.
    """
    text = _checked(text)
    if text == "1":
        return Quantity(Fraction(1), Dimension.none(), text)
    scale, dimension = _measured(text, text)
    return Quantity(scale, dimension, text)


def _checked(text: object) -> str:
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise UnitError(f"{str(text)[:40]!r} is not a number with a unit, such as '12.5 ms'")
    if isinstance(text, int) and abs(text) >= 10**_LARGEST_EXPONENT:
        raise UnitError(f"the number is out of range; it has more than {_LARGEST_EXPONENT} digits")
    text = str(text).strip()
    if len(text) > _LONGEST:
        raise UnitError(f"{text[:40] + '...'!r} is longer than {_LONGEST} characters")
    return text


@lru_cache(maxsize=512)
def _measured(unit: str, text: str) -> tuple[Fraction, Dimension]:
    """The scale to SI and the dimension of a unit that stands in ``text``."""
    tokens = _tokens(unit, text)
    try:
        product = _product(tokens, text, 0)
    except IndexError:
        raise _unreadable(unit, text) from None
    if tokens:
        raise _unreadable(unit, text)
    scale, _ = _registry().get_root_units(product)
    dimension = Dimension.none()
    for base, exponent in product.dimensionality.items():
        if base not in _BASE_OF:
            raise UnitError(f"{text!r} holds a current; write power as volts times amperes")
        dimension *= Dimension.of(_BASE_OF[base]) ** Fraction(str(exponent))
    return Fraction(str(scale)), dimension


def _unreadable(unit: str, text: str) -> UnitError:
    whole = "" if unit == text else f" in {text!r}"
    return UnitError(f"cannot read {unit!r}{whole} as a unit, such as 'ms', 'pJ/op' or 'GB/s'")


def _tokens(unit: str, text: str) -> list[str]:
    """Names, operators and powers (``"^2"``) in reverse, so that the next one is last."""
    tokens, at = [], 0
    while at < len(unit):
        match = _TOKEN.match(unit, at)
        if match is None:
            raise _unreadable(unit, text)
        power, exponent, name, operator, one = match.groups()
        tokens.append(f"^{exponent}" if power else name or operator or one)
        at = match.end()
    return tokens[::-1]


def _product(tokens: list[str], text: str, depth: int) -> "PlainUnit":
    product = _factor(tokens, text, depth)
    while tokens and tokens[-1] in ("*", "·", "/"):
        operator, factor = tokens.pop(), _factor(tokens, text, depth)
        product = product / factor if operator == "/" else product * factor
    return product


def _factor(tokens: list[str], text: str, depth: int) -> "PlainUnit":
    token = tokens.pop()
    if token == "(" and depth < _DEEPEST:
        unit = _product(tokens, text, depth + 1)
        if tokens.pop() != ")":
            raise IndexError
    elif token == "1":
        unit = _registry().Unit("")
    elif token[0].isalpha() or token == "%":
        unit = _named("percent" if token == "%" else token, text)
    else:
        raise IndexError
    if tokens and tokens[-1][0] == "^":
        unit = unit ** int(tokens.pop()[1:])
    return unit


def _named(name: str, text: str) -> "PlainUnit":
    """The unit of one name, prefix included."""
    for pattern, reason in _AMBIGUOUS:
        match = re.fullmatch(pattern, name)
        if match:
            raise UnitError(f"unknown unit {name!r} in {text!r}; {match.expand(reason)}")
    found = _registry().parse_unit_name(name)
    if not found or not _prefix_fits(*found[0][:2]):
        near = [usual for usual in _USUAL if usual.lower() == name.lower()]
        hint = f"; did you mean {near[0]!r}?" if near else did_you_mean(name, _USUAL)
        raise UnitError(f"unknown unit {name!r} in {text!r}{hint}")
    return _registry().Unit(name)


def _prefix_fits(prefix: str, unit: str) -> bool:
    """Whether a prefix is usual: no millibytes, which are megabytes mistyped, no kibiwatts."""
    if not prefix or unit == "percent":
        return not prefix
    binary, smaller = prefix.endswith("bi"), "-" in _PREFIXES[prefix][0]
    return not (binary and unit not in ("byte", "bit")) and not (smaller and unit in _COUNTS)


@cache
def _registry() -> "pint.UnitRegistry[Fraction]":
    import pint

    registry: pint.UnitRegistry[Fraction] = pint.UnitRegistry(None, non_int_type=Fraction)
    for prefix, (factor, symbol) in _PREFIXES.items():
        registry.define(f"{prefix}- = {factor} = {symbol}-")
    for definition in _UNITS:
        registry.define(definition)
    return registry
