"""Text for people: formulas in the notation of platform files, numbers, folded lines."""

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
from sympy.printing.precedence import PRECEDENCE
from sympy.printing.str import StrPrinter

GAP = 2


class _FormulaPrinter(StrPrinter):  # type: ignore[misc]
    """Writes sympy as platform files do; names may be replaced by text."""

    def __init__(self, names: Mapping[str, str]) -> None:
        super().__init__({"order": None})
        self.names = names

    def _print_Symbol(self, expr: sympy.Symbol) -> str:
        return self.names.get(expr.name, expr.name)

    def _print_ceiling(self, expr: sympy.Expr) -> str:
        return f"ceil({self._print(expr.args[0])})"

    def _print_floor(self, expr: sympy.Expr) -> str:
        return f"floor({self._print(expr.args[0])})"

    def _print_Abs(self, expr: sympy.Expr) -> str:
        return f"abs({self._print(expr.args[0])})"

    def _print_Mod(self, expr: sympy.Expr) -> str:
        left, right = (self.parenthesize(arg, PRECEDENCE["Mul"], strict=True) for arg in expr.args)
        return f"({left} % {right})"

    def _print_And(self, expr: sympy.Basic) -> str:
        return " and ".join(self.parenthesize(arg, PRECEDENCE["And"]) for arg in expr.args)

    def _print_Or(self, expr: sympy.Basic) -> str:
        return " or ".join(self.parenthesize(arg, PRECEDENCE["Or"]) for arg in expr.args)

    def _print_Not(self, expr: sympy.Basic) -> str:
        return f"not {self.parenthesize(expr.args[0], PRECEDENCE['Not'])}"

    def _print_Relational(self, expr: Any) -> str:
        sign = {"Eq": "==", "Ne": "!="}.get(type(expr).__name__[:2], expr.rel_op)
        sign = {"Equality": "==", "Unequality": "!="}.get(type(expr).__name__, sign)
        return f"{self._print(expr.lhs)} {sign} {self._print(expr.rhs)}"

    def _print_Rational(self, expr: sympy.Rational) -> str:
        return decimal(expr)

    def _print_Mul(self, expr: sympy.Mul) -> str:
        factor, rest = expr.as_coeff_Mul()
        if _is_decimal(factor):
            return f"{decimal(factor)}*{self.parenthesize(rest, PRECEDENCE['Mul'], strict=True)}"
        return str(super()._print_Mul(expr))


def _is_decimal(number: sympy.Expr) -> bool:
    """Whether a factor is better written 18.2 than 91/5; a half or a quarter is not."""
    if not number.is_Rational or number.q == 1 or abs(number.p) == 1:
        return False
    rest = int(number.q)
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1 and len(decimal(number)) <= 12


def decimal(number: sympy.Expr) -> str:
    """Return a number as ``27`` or ``18.2``, at most 10 significant digits."""
    if number.is_Integer:
        return str(number)
    return f"{float(number):.10g}"


def formula_text(expr: sympy.Basic, names: Mapping[str, str] | None = None) -> str:
    """Return a formula as platform files write it, names replaced by ``names``."""
    return str(_FormulaPrinter(names or {}).doprint(expr))


def filled(text: str, names: Mapping[str, str]) -> str:
    """Return a formula's text with names replaced, in the order in which it was written."""
    return re.sub(r"[A-Za-z_][\w.]*", lambda found: _factor(found.group(), names), text)


def _factor(name: str, names: Mapping[str, str]) -> str:
    text = names.get(name, name)
    return f"({text})" if any(sign in text for sign in "+-*/") else text


@dataclass(frozen=True)
class Section:
    """A heading and (what, text) lines."""

    title: str
    lines: Sequence[tuple[str, str]]


def sections_text(title: str, sections: Iterable[Section], width: int | None = None) -> str:
    """Return a title and the sections that have lines, folded at ``width``."""
    lines = folded(title, width)
    for section in sections:
        if section.lines:
            lines += ["", section.title]
            lines += ["  " + line for line in aligned(section.lines, width and width - 2)]
    return "\n".join(lines)


def quantity_text(value: float, unit: str) -> str:
    """Return a value in engineering units; cycles, which are counted, with all their digits."""
    from hwcost.units import engineering

    if unit == "cycle" and abs(value) < 1e7:
        return f"{value:,.10g} cycles"
    return engineering(value, unit)


def aligned(pairs: Sequence[tuple[str, str]], width: int | None = None) -> list[str]:
    """Return lines of ``what  text``, texts one under another and folded at ``width``."""
    longest = max((len(what) for what, _ in pairs), default=0)
    left = longest + GAP if longest else 0
    lines = []
    for what, text in pairs:
        parts = folded(text, None if width is None else max(width - left, 20))
        lines += [(what if i == 0 else "").ljust(left) + part for i, part in enumerate(parts)]
    return [line.rstrip() for line in lines]


def folded(text: str, width: int | None) -> list[str]:
    """Return ``text`` in lines of at most ``width`` characters, cut between words."""
    if width is None or len(text) <= width:
        return [text]
    return textwrap.wrap(text, width, break_on_hyphens=False) or [""]
