"""A formula at one row's sizes: its exact value, its terms, and what its functions decided."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import sympy
from sympy.functions.elementary.piecewise import Piecewise

from hwcost.explain_text import decimal, formula_text
from hwcost.formula_nodes import Maximum, Minimum, TableLookup

#: Symbol -> exact number; those of named sub-formulas included.
Values = Mapping[sympy.Symbol, sympy.Expr]
#: Symbol of a named sub-formula -> the sub-formula.
Inner = Mapping[sympy.Symbol, sympy.Expr]


def value_of(expr: sympy.Basic, values: Values) -> sympy.Expr:
    """Return the exact value of a formula; a branch that is not taken is not looked at."""
    if isinstance(expr, Piecewise):
        return value_of(taken_branch(expr, values)[1], values)
    if not expr.args:
        return values.get(expr, expr)
    return expr.func(*(value_of(arg, values) for arg in expr.args))


def taken_branch(expr: Piecewise, values: Values) -> tuple[sympy.Basic, sympy.Expr]:
    """Return the condition and the expression of the first branch whose condition holds."""
    for branch, condition in expr.args:
        if value_of(condition, values) == sympy.true:
            return condition, branch
    return sympy.true, sympy.nan


def taken(expr: sympy.Basic, values: Values, inner: Inner) -> Iterator[sympy.Basic]:
    """Yield every part of a formula that its value depends on, outer ones first, each once."""
    seen, pending = set(), [expr]
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        yield node
        if isinstance(node, Piecewise):
            pending.append(taken_branch(node, values)[1])
        elif node in inner:
            pending.append(inner[node])
        else:
            pending += reversed(node.args)


@dataclass(frozen=True)
class Term:
    """One summand of a cost: its formula and value."""

    text: str
    value: float


def terms(expr: sympy.Expr, values: Values) -> list[Term]:
    """Return the summands of a formula, largest first; a factor before a sum is spread over it."""
    while isinstance(expr, Piecewise):
        expr = taken_branch(expr, values)[1]
    found = [Term(formula_text(term), float(value_of(term, values))) for term in _summands(expr)]
    return sorted(found, key=lambda term: -abs(term.value))


def _summands(expr: sympy.Expr) -> list[sympy.Expr]:
    if isinstance(expr, sympy.Add):
        return [part for arg in expr.args for part in _summands(arg)]
    sums = [arg for arg in expr.args if isinstance(arg, sympy.Add)] if expr.is_Mul else []
    if len(sums) != 1:
        return [expr]
    rest = sympy.Mul(*(arg for arg in expr.args if arg is not sums[0]))
    return [part for arg in sums[0].args for part in _summands(sympy.Mul(rest, arg))]


def _short(value: float) -> str:
    return f"{value:,.6g}"


def decisions(
    expr: sympy.Basic, values: Values, inner: Inner, show: Callable[[float], str] = _short
) -> list[str]:
    """Return a line for each max, min and condition: which side won, and by what numbers."""
    lines = []
    for node in taken(expr, values, inner):
        if isinstance(node, Maximum | Minimum):
            lines.append(_extremum(node, values, show))
        elif isinstance(node, Piecewise):
            lines.append(_branch(node, values, show))
    return lines


def _extremum(node: sympy.Expr, values: Values, show: Callable[[float], str]) -> str:
    best = max if isinstance(node, Maximum) else min
    sides = [(float(value_of(arg, values)), arg) for arg in node.args]
    winner = best(value for value, _ in sides)
    won = [formula_text(arg) for value, arg in sides if value == winner]
    known = [f"{formula_text(arg)} = {show(value)}" for value, arg in sides if not arg.is_number]
    verdict = f"{won[0]} wins" if len(won) == 1 else f"a tie of {' and '.join(won)}"
    return f"{formula_text(node)}: {', '.join(known)}; {verdict}"


def _branch(node: Piecewise, values: Values, show: Callable[[float], str]) -> str:
    condition, branch = taken_branch(node, values)
    result = f"{formula_text(branch)} = {show(float(value_of(branch, values)))}"
    if branch.is_number:
        result = _short(float(branch))
    if condition != sympy.true:
        return f"{formula_text(condition)} holds: {result}"
    failed = [formula_text(c) for _, c in node.args[:-1]]
    reason = f"{failed[0]} does not hold" if len(failed) == 1 else "none of the conditions holds"
    return f"{reason}: {result}"


def roundings(expr: sympy.Basic, values: Values, inner: Inner) -> list[str]:
    """Return a line for each ceil that rounds up: how much of its last tile is idle."""
    lines = []
    for node in taken(expr, values, inner):
        if not isinstance(node, sympy.ceiling):
            continue
        inside, rounded = value_of(node.args[0], values), value_of(node, values)
        if inside == rounded or not rounded > 0:
            continue
        idle = 1 - float(inside) / float(rounded)
        lines.append(
            f"{formula_text(node)} = ceil({decimal(inside)}) = {decimal(rounded)}:"
            f" {100 * idle:.3g} % idle{_same_cost(node.args[0], values)}"
        )
    return lines


def _same_cost(inside: sympy.Expr, values: Values) -> str:
    """For ``cout/4`` at 10: up to 12 costs the same."""
    factor, size = inside.as_coeff_Mul()
    if not (isinstance(size, sympy.Symbol) and factor.is_Rational and factor.p == 1):
        return ""
    tile = int(factor.q)
    full = -(-int(values[size]) // tile) * tile
    return f"; {size.name} = {full} costs the same as {decimal(values[size])}"


def lookups(expr: sympy.Basic, values: Values, inner: Inner) -> list[tuple[type[TableLookup], str]]:
    """Return each table that the value was looked up in, with the cell as text."""
    found = []
    for node in taken(expr, values, inner):
        if isinstance(node, TableLookup):
            cell = [value_of(arg, values) for arg in node.args]
            indices = ", ".join(map(decimal, cell))
            table = type(node)
            found.append((table, f"{formula_text(node)} = [{indices}] = {decimal(table(*cell))}"))
    return found
