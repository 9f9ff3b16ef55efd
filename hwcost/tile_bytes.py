"""Formulas asked for many tiles of each op: what no tile changes is computed once an op."""

from collections.abc import Mapping, Sequence

import sympy
import torch
from torch import Tensor

from hwcost.compile import compile_formula
from hwcost.formula_nodes import Case, Ceil, Floor, Maximum, Minimum, Where

#: What a formula is taken apart in; other nodes stay as they are.
_OPEN = (sympy.Add, sympy.Mul, Where, Case, Maximum, Minimum, Ceil, Floor)


class TileFormula:
    """A formula of tiles.

    Args:
        expr: over sizes of an op and the tile's.
        names: the tile's columns.

    Attributes:
        reads: the columns of an op that it reads.
    """

    def __init__(self, expr: sympy.Expr, names: Sequence[str]) -> None:
        fixed = _Fixed(names)
        self._formula = compile_formula(fixed.taken_apart(expr))
        self._parts = {name: compile_formula(part) for name, part in fixed.parts.items()}
        self._known = [name for name in self._formula.names if name not in names]
        order = [*names, *self._known]
        self._order = [order.index(name) for name in self._formula.names]
        own = {name for name in self._known if name not in self._parts}
        self.reads = own.union(*(part.names for part in self._parts.values()))

    def known(self, columns: Mapping[str, Tensor], ops: int) -> Tensor:
        """Return what a call needs to know of each op, float64, shape ``(parts, ops)``.

        Args:
            columns: at least those of ``reads``, shape ``(ops,)``.
        """
        found = [
            self._parts[name](columns) if name in self._parts else columns[name]
            for name in self._known
        ]
        rows = [column.to(torch.float64).expand(ops) for column in found]
        return torch.stack(rows) if rows else torch.empty(0, ops, dtype=torch.float64)

    def __call__(self, tile: Sequence[Tensor], known: Sequence[Tensor]) -> Tensor:
        """Return the value for each tile, shape ``(tiles,)``.

        Args:
            tile: along each size that is cut, shape ``(tiles,)``.
            known: of the op of each tile, as ``tile``.
        """
        read = [*tile, *known]
        inputs = [read[place] for place in self._order]
        # The program itself: so many calls are of a few tiles that checks would take half the time.
        found = self._formula.program.run(inputs[0], inputs) if inputs else self._formula({})
        value: Tensor = found.expand(len(tile[0]))
        return value


class _Fixed:
    """The parts of a formula that no tile changes.

    Attributes:
        parts: column that stands for a part -> what it is.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.parts: dict[str, sympy.Expr] = {}
        self._names = frozenset(names)

    def taken_apart(self, node: sympy.Basic) -> sympy.Basic:
        """Return a formula with a column for each part that no tile changes."""
        if self._is_fixed(node):
            return self._column(node) if isinstance(node, sympy.Expr) else node
        if not isinstance(node, _OPEN):
            return node
        if isinstance(node, sympy.Add | sympy.Mul):
            own = [arg for arg in node.args if self._is_fixed(arg)]
            rest = [self.taken_apart(arg) for arg in node.args if not self._is_fixed(arg)]
            join = self._factors if isinstance(node, sympy.Mul) else self._summed
            return node.func(*join(own), *rest)
        return node.func(*map(self.taken_apart, node.args))

    def _is_fixed(self, node: sympy.Basic) -> bool:
        return not any(symbol.name in self._names for symbol in node.free_symbols)

    def _column(self, part: sympy.Expr) -> sympy.Expr:
        if part.is_Symbol or part.is_number:
            return part
        name = next((n for n, known in self.parts.items() if known == part), None)
        name = name or f"fixed.{len(self.parts)}"
        self.parts[name] = part
        return sympy.Symbol(name, real=True)

    def _summed(self, terms: Sequence[sympy.Expr]) -> list[sympy.Expr]:
        return [self._column(sympy.Add(*terms))] if terms else []

    def _factors(self, factors: Sequence[sympy.Expr]) -> list[sympy.Expr]:
        """Factors as one column, but for divisors: a quotient rounds, and may be rounded up."""
        number = sympy.Mul(*(f for f in factors if f.is_number))
        below = [f for f in factors if f.is_Pow and not f.is_number]
        above = [f for f in factors if not f.is_number and f not in below]
        # A power of two divides exactly.
        inside = bool(above) and number.is_Rational and not number.q & (number.q - 1)
        if not above:
            return [number, *below]
        product = sympy.Mul(*((number,) if inside else ()), *above)
        return [self._column(product), *(() if inside else (number,)), *below]
