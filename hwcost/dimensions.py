"""The dimension of a formula, found by walking its sympy tree.

Counts (bytes, cycles, ops and their ratios) may stand beside plain numbers, as in
``cycles + 100``; seconds and joules never mix with anything else. Zero fits everywhere.
"""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import sympy
from sympy.core.relational import Relational
from sympy.functions.elementary.piecewise import ExprCondPair
from sympy.logic.boolalg import Boolean

from hwcost.errors import UnitError
from hwcost.formula_nodes import TableLookup
from hwcost.units import Dimension

NONE = Dimension.none()
_TAKEN_AS_CYCLES = (NONE, Dimension.of("op"), Dimension.of("B"))


def dimension_of(expr: sympy.Basic, dims: Mapping[str, Dimension]) -> Dimension:
    """Return the dimension of an expression; a condition has none.

    Args:
        expr: a parsed formula.
        dims: name of each symbol -> its dimension.

    Raises:
        UnitError: terms of different dimensions meet, or a name has no dimension.
    """
    return _dimension(expr, dims, {})


def require(found: Dimension, due: Dimension, what: str) -> None:
    """Check that ``what`` has the dimension due; a plain count will do for cycles.

    Raises:
        UnitError: it has another one.
    """
    if found == due or (due == Dimension.of("cycle") and found in _TAKEN_AS_CYCLES):
        return
    raise UnitError(f"{what!r} {_stated(found)}; expected {_named(due)}")


def _named(dimension: Dimension) -> str:
    return "a plain number" if dimension == NONE else str(dimension)


def _stated(dimension: Dimension) -> str:
    return "is a plain number" if dimension == NONE else f"is in {dimension}"


_Dims = Mapping[str, Dimension]
_Known = dict[sympy.Basic, Dimension]


def _dimension(expr: Any, dims: _Dims, known: _Known) -> Dimension:
    """As ``dimension_of``; ``known`` holds what was found before, since formulas share parts."""
    if expr not in known:
        if isinstance(expr, sympy.Symbol):
            known[expr] = _symbol_dimension(expr, dims)
        else:
            parts = [_dimension(arg, dims, known) for arg in expr.args]
            known[expr] = _rule(expr)(expr, parts)
    return known[expr]


def _symbol_dimension(expr: sympy.Symbol, dims: _Dims) -> Dimension:
    if expr.name not in dims:
        raise UnitError(f"{expr.name!r} has no dimension")
    return dims[expr.name]


def _rule(expr: sympy.Basic) -> Callable[[Any, Sequence[Dimension]], Dimension]:
    for kind, rule in _RULES.items():
        if isinstance(expr, kind):
            return rule
    raise UnitError(f"no dimension is known for {type(expr).__name__!r}")


def _together(what: str) -> Callable[[Any, Sequence[Dimension]], Dimension]:
    """The rule for things of which all must have one dimension."""

    def rule(expr: Any, parts: Sequence[Dimension]) -> Dimension:
        terms = [d for arg, d in zip(expr.args, parts, strict=True) if not _is_zero(arg)]
        return _common(terms, what)

    return rule


def _is_zero(arg: sympy.Basic) -> bool:
    return bool(arg == 0) or (isinstance(arg, ExprCondPair) and bool(arg.expr == 0))


def _common(parts: Sequence[Dimension], what: str) -> Dimension:
    found = list(dict.fromkeys(parts))
    if len(found) > 1 and all(d.is_count for d in found):
        found = [d for d in found if d != NONE]
    if len(found) > 1:
        first, second = (_named(d) for d in found[:2])
        raise UnitError(f"{what} {first} and {second}")
    return found[0] if found else NONE


def _product(expr: Any, parts: Sequence[Dimension]) -> Dimension:
    product = NONE
    for part in parts:
        product *= part
    return product


def _power(expr: Any, parts: Sequence[Dimension]) -> Dimension:
    base, exponent = parts
    if expr.exp.is_Rational:
        return base ** Fraction(int(expr.exp.p), int(expr.exp.q))
    _count("raises a number to", exponent)
    return _count("raises to a power", base)


def _rounded(expr: Any, parts: Sequence[Dimension]) -> Dimension:
    _count("rounds", parts[0])
    return parts[0]


def _function(expr: Any, parts: Sequence[Dimension]) -> Dimension:
    return _count(f"takes {expr.func.__name__} of", parts[0])


def _lookup(expr: Any, parts: Sequence[Dimension]) -> Dimension:
    for part in parts:
        _count(f"looks {expr.table.name!r} up at", part)
    dimension: Dimension = expr.table.dimension
    return dimension


def _count(what: str, dimension: Dimension) -> Dimension:
    """A plain number, once it is known that ``dimension`` is a count."""
    if not dimension.is_count:
        raise UnitError(f"{what} {dimension}; expected a count")
    return NONE


def _compared(expr: Any, parts: Sequence[Dimension]) -> Dimension:
    _together("compares")(expr, parts)
    return NONE


def _first(expr: Any, parts: Sequence[Dimension]) -> Dimension:
    return parts[0]


def _none(expr: Any, parts: Sequence[Dimension]) -> Dimension:
    return NONE


#: Class of a sympy node -> its dimension from those of its arguments; the first that fits counts.
_RULES: dict[type, Callable[[Any, Sequence[Dimension]], Dimension]] = {
    sympy.Number: _none,
    sympy.NumberSymbol: _none,
    sympy.Add: _together("adds"),
    sympy.Mul: _product,
    sympy.Pow: _power,
    sympy.Max: _together("takes the maximum of"),
    sympy.Min: _together("takes the minimum of"),
    sympy.Piecewise: _together("chooses between"),
    ExprCondPair: _first,
    sympy.Abs: _first,
    sympy.ceiling: _rounded,
    sympy.floor: _rounded,
    sympy.exp: _function,
    sympy.log: _function,
    TableLookup: _lookup,
    Relational: _compared,
    Boolean: _none,
}
