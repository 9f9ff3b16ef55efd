from fractions import Fraction

import pytest
import sympy

from hwcost.dimensions import dimension_of, require
from hwcost.errors import UnitError
from hwcost.formula import Scope, Table, make_table, parse, parse_condition, symbol
from hwcost.units import Dimension, parse_unit

UNITS = {
    "cin": "1",
    "depthwise": "1",
    "macs": "op",
    "w_bytes": "B",
    "cycles": "cycle",
    "busy": "s",
    "span": "s",
    "energy": "J",
    "clock": "Hz",
    "power": "W",
    "rate": "op/cycle",
    "e_mac": "pJ/op",
}
DIMS = {name: parse_unit(unit).dimension for name, unit in UNITS.items()}
RATES = Table("rates", (("a_bits", (Fraction(8),)),), (Fraction(2),), DIMS["rate"])
SCOPE = Scope({name: symbol(name) for name in UNITS}, {"rates": make_table(RATES)})


def dimension(text: str) -> str:
    return str(dimension_of(parse(text, SCOPE), DIMS))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cycles/clock", "s"),
        ("1/clock", "s/cycle"),
        ("power*busy + power*(span - busy)", "J"),
        ("macs*e_mac", "J"),
        ("macs/rate", "cycle"),
        ("macs/rates[cin]", "cycle"),
        ("2*cin + 3", "1"),
        ("cycles + 100", "cycle"),
        ("cin + cycles", "cycle"),
        ("macs + 3*cin", "op"),
        ("ceil(macs/16) + 1", "op"),
        ("ceil(cycles)*2", "cycle"),
        ("cin % 4", "1"),
        ("macs % 4", "op"),
        ("busy % span", "s"),
        ("max(cycles, 100)", "cycle"),
        ("max(busy, 0)", "s"),
        ("min(energy, 2*energy)", "J"),
        ("where(cin > 3, energy, 0)", "J"),
        ("where(depthwise, busy, span)", "s"),
        ("where(busy > span, 1, 2)", "1"),
        ("where(busy > 0, energy, 2*energy)", "J"),
        ("where(macs > 100, 1, 2)", "1"),
        ("largest(u in [4, 2, 1], u*macs <= 100)*busy", "s"),
        ("abs(busy - span)", "s"),
        ("sqrt(energy*energy)", "J"),
        ("sqrt(2*macs)**2", "op"),
        ("busy**2/span", "s"),
        ("energy**0.5", "J^(1/2)"),
        ("log2(macs)", "1"),
        ("exp(-cin)", "1"),
        ("2**cin", "1"),
        ("0", "1"),
        ("0*energy + busy", "s"),
    ],
)
def test_the_dimension_of_a_formula(text: str, expected: str) -> None:
    assert dimension(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("busy + energy", "adds J and s|adds s and J"),
        ("busy + 1", "adds (a plain number and s|s and a plain number)"),
        ("energy - cin", "a plain number"),
        ("macs + w_bytes", "adds (B and op|op and B)"),
        ("max(busy, energy)", "takes the maximum of s and J"),
        ("min(busy, 3)", "takes the minimum of s and a plain number"),
        ("where(cin > 3, busy, 1)", "chooses between s and a plain number"),
        ("where(busy > energy, 1, 2)", "compares s and J"),
        ("where(busy > 1, 1, 2)", "compares s and a plain number"),
        ("ceil(busy)", "rounds s; expected a count"),
        ("busy // 3", "rounds s; expected a count"),
        ("exp(busy)", "takes exp of s; expected a count"),
        ("log2(energy)", "takes log of J; expected a count"),
        ("2**busy", "raises a number to s; expected a count"),
        ("rates[busy]", "looks 'rates' up at s; expected a count"),
        ("where(cin > 3 and busy > energy, 1, 2)", "compares s and J"),
    ],
)
def test_dimensions_that_do_not_fit_are_named(text: str, message: str) -> None:
    with pytest.raises(UnitError, match=message):
        dimension(text)


def test_a_condition_is_checked_and_has_no_dimension() -> None:
    assert dimension_of(parse_condition("depthwise and macs > 3", SCOPE), DIMS) == Dimension.none()
    with pytest.raises(UnitError, match="compares s and J"):
        dimension_of(parse_condition("busy > energy", SCOPE), DIMS)


def test_a_name_without_a_dimension_is_an_error() -> None:
    with pytest.raises(UnitError, match="'x' has no dimension"):
        dimension_of(symbol("x") + 1, DIMS)


def test_plain_sympy_has_dimensions_too() -> None:
    busy, span = symbol("busy"), symbol("span")
    expr = sympy.Max(busy, span) + sympy.Piecewise((busy, busy > span), (span, True))
    assert dimension_of(expr, DIMS) == DIMS["busy"]


@pytest.mark.parametrize("found", ["1", "op", "B", "cycle"])
def test_a_count_will_do_for_cycles(found: str) -> None:
    require(parse_unit(found).dimension, parse_unit("cycle").dimension, "cycles")


@pytest.mark.parametrize(
    ("found", "due", "message"),
    [
        ("W", "J", "'energy' is in J/s; expected J"),
        ("s", "cycle", "'energy' is in s; expected cycle"),
        ("B*op", "cycle", "'energy' is in B*op; expected cycle"),
        ("op", "B", "'energy' is in op; expected B"),
        ("1", "J", "'energy' is a plain number; expected J"),
        ("cycle", "1", "'energy' is in cycle; expected a plain number"),
    ],
)
def test_any_other_mismatch_is_an_error(found: str, due: str, message: str) -> None:
    with pytest.raises(UnitError) as error:
        require(parse_unit(found).dimension, parse_unit(due).dimension, "energy")
    assert str(error.value) == message
