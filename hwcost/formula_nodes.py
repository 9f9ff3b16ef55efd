"""What formulas are made of beside sympy's own: symbols, look-ups, where, max, ceil and the like.

sympy's Piecewise, Max and ceiling reason about their arguments whenever they are made or
substituted into, which can take minutes and rewrites what the user wrote. The subclasses here
keep their arguments and only decide what is decided: numbers and true or false conditions.
"""

import copyreg
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import chain
from math import prod
from typing import TYPE_CHECKING, Any

import sympy
from sympy.functions.elementary.piecewise import ExprCondPair

from hwcost.errors import DescriptorError, FormulaError

if TYPE_CHECKING:
    from hwcost.units import Dimension

#: Names that stand for a condition rather than a number.
TRUTHS = frozenset({"depthwise"})


def symbol(name: str) -> sympy.Symbol:
    """Return the symbol of a name: a number that is not negative, or a condition.

    Not ``integer=True``: sympy would delete ceil and floor, and with them the cost of the
    soft sizes of a search.
    """
    return sympy.Symbol(name) if name in TRUTHS else sympy.Symbol(name, nonnegative=True)


def is_condition(expr: sympy.Basic) -> bool:
    """Whether ``expr`` is true or false rather than a number."""
    if isinstance(expr, sympy.Symbol):
        return expr.name in TRUTHS
    return isinstance(expr, sympy.logic.boolalg.Boolean)


def _node(value: Any) -> sympy.Basic:
    """A sympy node as it is, a Python number or truth value as one."""
    if isinstance(value, bool):
        return sympy.true if value else sympy.false
    return value if isinstance(value, sympy.Basic) else sympy.Number(value)


class Case(ExprCondPair):  # type: ignore[misc]
    """An expression and when it counts; sympy's own would unfold a where() in the condition."""

    def __new__(cls, expr: sympy.Basic, condition: sympy.Basic) -> "Case":
        """Return the pair as it is given."""
        case: Case = sympy.Basic.__new__(cls, _node(expr), _node(condition))
        return case


class Where(sympy.Piecewise):  # type: ignore[misc]
    """Piecewise whose conditions are left as they are."""

    def __new__(cls, *pairs: Any, **_: Any) -> sympy.Basic:
        """Return the first expression whose condition is true, once that is known."""
        kept = []
        for pair in pairs:
            expr, condition = getattr(pair, "args", pair)
            if condition == sympy.false:
                continue
            kept.append(Case(expr, condition))
            if condition == sympy.true:
                break
        if kept and kept[0].cond == sympy.true:
            return kept[0].expr
        return sympy.Basic.__new__(cls, *kept) if kept else sympy.nan

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        text = printer._print_Piecewise(self)
        return text if exp is None else rf"\left({text}\right)^{{{exp}}}"

    def _sympystr(self, printer: Any) -> str:
        text = printer.doprint(self.args[-1].expr)
        for expr, condition in reversed(self.args[:-1]):
            text = f"where({printer.doprint(condition)}, {printer.doprint(expr)}, {text})"
        return str(text)


def _without_reasoning(base: Any, cls: Any, args: Sequence[Any]) -> sympy.Basic:
    """An extremum of the arguments in their order; only numbers are compared."""
    flat = chain.from_iterable(a.args if isinstance(a, cls) else (a,) for a in args)
    kept = list(dict.fromkeys(map(_node, flat)))
    numbers = [a for a in kept if a.is_number]
    if len(numbers) > 1:
        best = base(*numbers)
        kept = [a for a in kept if not a.is_number or a == best]
    if len(kept) == 1:
        return kept[0]
    extremum = sympy.Expr.__new__(cls, *kept)
    extremum._argset = frozenset(kept)
    return extremum


def _latex_call(
    name: str, args: Any, printer: Any, exp: str | None, brackets: Sequence[str] = "()"
) -> str:
    inside = ", ".join(printer._print(arg) for arg in args)
    text = rf"{name}\left{brackets[0]}{inside}\right{brackets[1]}"
    return text if exp is None else f"{text}^{{{exp}}}"


class Maximum(sympy.Max):  # type: ignore[misc]
    """Max whose arguments are left as they are."""

    def __new__(cls, *args: Any, **_: Any) -> sympy.Basic:
        """Return the larger of the arguments; only numbers are compared."""
        return _without_reasoning(sympy.Max, cls, args)

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        return _latex_call(r"\max", self.args, printer, exp)

    def _sympystr(self, printer: Any) -> str:
        return f"max({', '.join(map(printer.doprint, self.args))})"


class Minimum(sympy.Min):  # type: ignore[misc]
    """Min whose arguments are left as they are."""

    def __new__(cls, *args: Any, **_: Any) -> sympy.Basic:
        """Return the smaller of the arguments; only numbers are compared."""
        return _without_reasoning(sympy.Min, cls, args)

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        return _latex_call(r"\min", self.args, printer, exp)

    def _sympystr(self, printer: Any) -> str:
        return f"min({', '.join(map(printer.doprint, self.args))})"


class _OfOne:
    """A function of one argument that is left as it is; only a number is worked out."""

    sympy_function: Any
    word: str
    brackets: tuple[str, str]

    @classmethod
    def eval(cls, arg: sympy.Expr) -> sympy.Expr | None:
        """Return the value at a number, else None."""
        return cls.sympy_function(arg) if arg.is_number else None

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        return _latex_call("", self.args, printer, exp, self.brackets)  # type: ignore[attr-defined]

    def _sympystr(self, printer: Any) -> str:
        return f"{self.word}({printer.doprint(self.args[0])})"  # type: ignore[attr-defined]


class Ceil(_OfOne, sympy.ceiling):  # type: ignore[misc]
    """Ceiling without sympy's search for whole parts, which takes a millisecond each."""

    sympy_function, word, brackets = sympy.ceiling, "ceil", (r"\lceil", r"\rceil")


class Floor(_OfOne, sympy.floor):  # type: ignore[misc]
    """Floor, as ``Ceil``."""

    sympy_function, word, brackets = sympy.floor, "floor", (r"\lfloor", r"\rfloor")


class Absolute(_OfOne, sympy.Abs):  # type: ignore[misc]
    """Abs, as ``Ceil``."""

    sympy_function, word, brackets = sympy.Abs, "abs", ("|", "|")


@dataclass(frozen=True)
class Table:
    """Numbers by the values of axes.

    Attributes:
        name: as formulas call it.
        axes: name and values of each axis, in the order of a look-up's indices.
        values: in SI units, flat, the last axis fastest.
        dimension: of the values.
    """

    name: str
    axes: tuple[tuple[str, tuple[Fraction, ...]], ...]
    values: tuple[Fraction, ...]
    dimension: "Dimension"

    def __post_init__(self) -> None:
        for axis, points in self.axes:
            if len(set(points)) != len(points):
                raise DescriptorError(f"axis {axis!r} of {self.name!r} has a value twice")
        due = prod(len(points) for _, points in self.axes)
        if len(self.values) != due or not due:
            fact = f"{self.name!r} has {len(self.values)} values"
            raise DescriptorError(f"{fact}; expected {due}, one for each combination of its axes")

    def position(self, axis: int, index: Fraction) -> int:
        """Return where a value stands on an axis.

        Raises:
            FormulaError: it is not on the axis.
        """
        name, points = self.axes[axis]
        if index not in points:
            known = ", ".join(map(str, points))
            raise FormulaError(f"{name} has no {index}; known: {known}")
        return points.index(index)


class _LookupClass(type(sympy.Function)):  # type: ignore[misc]
    """Look-up classes are equal when their tables are, and pickle as their table."""

    table: Table | None

    def __eq__(cls, other: object) -> bool:
        if cls is other or not isinstance(other, _LookupClass) or cls.table is None:
            return cls is other
        return cls.table == other.table

    def __hash__(cls) -> int:
        return hash(cls.table)

    def __reduce__(cls) -> Any:
        return cls.__qualname__ if cls.table is None else (make_table, (cls.table,))


copyreg.pickle(_LookupClass, _LookupClass.__reduce__)


class TableLookup(sympy.Function, metaclass=_LookupClass):  # type: ignore[misc]
    """A table applied to its indices; one subclass for each table, made by ``make_table``.

    It is a number once all indices are, and raises FormulaError for an index off its axis.
    """

    table: Table | None = None

    @classmethod
    def eval(cls, *indices: sympy.Expr) -> sympy.Rational | None:
        """Return the value if all indices are numbers, else None."""
        assert cls.table is not None
        positions = [
            cls._position(axis, indices) if index.is_number else None
            for axis, index in enumerate(indices)
        ]
        flat = 0
        for (_, points), position in zip(cls.table.axes, positions, strict=True):
            if position is None:
                return None
            flat = flat * len(points) + position
        value = cls.table.values[flat]
        return sympy.Rational(value.numerator, value.denominator)

    @classmethod
    def _position(cls, axis: int, indices: Sequence[sympy.Expr]) -> int:
        assert cls.table is not None
        number = sympy.Rational(indices[axis])
        try:
            return cls.table.position(axis, Fraction(int(number.p), int(number.q)))
        except FormulaError as error:
            shown = ", ".join(map(str, indices))
            raise FormulaError(f"{cls.table.name}[{shown}]: {error}") from None

    def _eval_is_nonnegative(self) -> bool | None:
        return True if self.table and all(v >= 0 for v in self.table.values) else None

    def _eval_is_real(self) -> bool:
        return True

    def _sympystr(self, printer: Any) -> str:
        assert self.table is not None
        return f"{self.table.name}[{', '.join(map(printer.doprint, self.args))}]"

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        assert self.table is not None
        name = rf"\mathrm{{{self.table.name}}}".replace("_", r"\_")
        return _latex_call(name, self.args, printer, exp, "[]")


@lru_cache(maxsize=256)
def make_table(table: Table) -> type[TableLookup]:
    """Return the function that looks ``table`` up: apply it to one index for each axis."""
    body = {"table": table, "nargs": len(table.axes), "__module__": __name__}
    return _LookupClass(table.name, (TableLookup,), body)
