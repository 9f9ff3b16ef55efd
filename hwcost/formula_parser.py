"""The walk over a formula's syntax tree, and its limits.

Every limit is checked before sympy builds the expression that would break it, so that a hostile
formula is refused in milliseconds.
"""

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import sympy

from hwcost.errors import FormulaError, did_you_mean
from hwcost.formula_nodes import TableLookup

MAX_NESTING = 60
MAX_NODES = 20_000
MAX_DEGREE = 100
MAX_BITS = 256


@dataclass(frozen=True)
class Scope:
    """What a formula may name.

    Attributes:
        names: name -> what it stands for; a dotted name such as ``l2.size`` is one key.
        tables: name -> its look-up function, from ``make_table``.
    """

    names: Mapping[str, sympy.Basic]
    tables: Mapping[str, type[TableLookup]]


class Measure(NamedTuple):
    """How large an expression is, shared parts counted wherever they appear.

    Attributes:
        nodes: of the tree.
        depth: of the tree.
        degree: as a polynomial, roughly; it bounds the digits of exact values.
        bits: of its largest number.
        grows: whether a size is in an exponent.
    """

    nodes: int
    depth: int
    degree: int
    bits: int
    grows: bool


@lru_cache(maxsize=4096)
def measure(expr: sympy.Basic) -> Measure:
    """Return the measure of an expression."""
    if not expr.args:
        bits = 0
        if expr.is_Rational:
            bits = max(abs(expr.p), expr.q).bit_length()
        return Measure(1, 1, int(bool(expr.free_symbols)), bits, False)
    parts = [measure(arg) for arg in expr.args]
    degree = max(part.degree for part in parts)
    grows = any(part.grows for part in parts) or isinstance(expr, sympy.exp)
    if expr.is_Mul:
        degree = sum(part.degree for part in parts)
    elif expr.is_Pow:
        grows = grows or not expr.exp.is_number
        degree *= max(1, abs(int(expr.exp))) if expr.exp.is_Rational else 1
    return Measure(
        1 + sum(part.nodes for part in parts),
        1 + max(part.depth for part in parts),
        degree,
        max(part.bits for part in parts),
        grows,
    )


def shortened(text: str) -> str:
    """Return the text in quotes, its end cut off if it is long."""
    return repr(text if len(text) <= 80 else text[:77] + "...")


Handler = Callable[..., Any]


class Grammar(NamedTuple):
    """What formulas may have.

    Attributes:
        numbers: type of syntax node -> what makes a number of it, called with parser and node.
        conditions: the same for conditions, called with whether to negate as well.
        functions: name -> least and most arguments, and what builds the call from their nodes.
    """

    numbers: Mapping[type, Handler]
    conditions: Mapping[type, Handler]
    functions: Mapping[str, tuple[int, int, Handler]]


class Parser:
    """Turns one formula into sympy; ``number`` and ``condition`` call each other by node type.

    Attributes:
        bound: names that largest() binds -> their value.
        depth: levels of the tree above the node at hand.
    """

    def __init__(self, text: str, scope: Scope, grammar: Grammar) -> None:
        self.text, self.scope, self.grammar = text, scope, grammar
        self.bound: dict[str, sympy.Expr] = {}
        self.depth = 0

    def whole(self, kind: "Callable[[Parser, ast.expr], Any]") -> Any:
        """Return the whole text as a number or as a condition."""
        try:
            tree = ast.parse(self.text, mode="eval")
        except SyntaxError as error:
            fact = (error.msg or "invalid syntax").split(". ")[0]
            raise self.error(fact[:1].lower() + fact[1:]) from None
        except (ValueError, MemoryError, RecursionError):
            raise self.error("too many signs in a row") from None
        try:
            return kind(self, tree.body)
        except (ArithmeticError, TypeError, RecursionError, NotImplementedError):
            raise self.error("no meaning") from None

    def error(self, fact: str, hint: str = "") -> FormulaError:
        """An error that shows the formula."""
        shown = shortened(self.text)
        return FormulaError(f"{fact}{hint}" if shown in fact else f"{fact} in {shown}{hint}")

    def number(self, node: ast.expr) -> sympy.Expr:
        """The value of a node that has to be a number."""
        handler = self.grammar.numbers.get(type(node))
        if handler is None:
            raise self.not_allowed(node, "a condition", "; write where(condition, a, b)")
        return self._nested(handler, node)

    def condition(self, node: ast.expr, negated: bool = False) -> sympy.Basic:
        """The value of a node that has to be a condition, or its negation."""
        handler = self.grammar.conditions.get(type(node))
        if handler is None or (isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.Not)):
            raise self.not_allowed(node, "a number", "; write a condition, such as x != 0")
        return self._nested(handler, node, negated)

    def _nested(self, handler: Handler, node: ast.expr, *args: bool) -> Any:
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise self.error(f"more than {MAX_NESTING} levels")
        result = handler(self, node, *args)
        self.depth -= 1
        return result

    def not_allowed(self, node: ast.expr, other: str, hint: str) -> FormulaError:
        """An error about a node of a type that a formula does not have here."""
        if isinstance(node, ast.IfExp):
            return self.error("'if'", "; write where(condition, a, b)")
        if type(node) in self.grammar.numbers or type(node) in self.grammar.conditions:
            return self.error(f"{shortened(self.source(node))} is {other}", hint)
        return self.error(f"{shortened(self.source(node))} is not allowed")

    def source(self, node: ast.expr) -> str:
        """The text of a node; the whole formula is on one line and in ASCII."""
        return self.text[node.col_offset : node.end_col_offset]

    def make(self, build: Handler, *parts: Any, times: int = 1, more: int = 1) -> Any:
        """Build a node once it is known to be small enough.

        Args:
            build: called with ``parts``.
            times: how often the node repeats its parts.
            more: levels that the node adds.
        """
        sizes = [measure(part) for part in parts]
        if times * sum(size.nodes for size in sizes) + 5 * more > MAX_NODES:
            raise self.error(f"more than {MAX_NODES} terms once written out")
        if max(size.depth for size in sizes) + more > MAX_NESTING:
            raise self.error(f"more than {MAX_NESTING} levels once written out")
        return self.bounded(build(*parts))

    def bounded(self, expr: sympy.Basic) -> sympy.Basic:
        """``expr`` if its numbers are real and not too large; irrational ones to 30 digits."""
        if expr.is_number and not expr.is_Rational:
            expr = self.rational(expr)
        size = measure(expr)
        if size.bits > MAX_BITS:
            raise self.error("a number is too large")
        if size.degree > MAX_DEGREE:
            raise self.error(f"a power above {MAX_DEGREE}")
        return expr

    def rational(self, expr: sympy.Basic) -> sympy.Rational:
        """The number with 30 digits."""
        value = expr.evalf(30)
        if not (value.is_Float and value.is_finite):
            raise self.error(f"{str(expr)[:40]} is not a real number")
        if abs(value) > 2**MAX_BITS:
            raise self.error("a number is too large")
        return sympy.Rational(str(value))

    def name(self, node: ast.expr) -> sympy.Basic:
        """What a name stands for, dots included."""
        name, functions = self.source(node).replace(" ", ""), self.grammar.functions
        if name in self.bound:
            return self.bound[name]
        if name in self.scope.names:
            return self.scope.names[name]
        if name in self.scope.tables:
            table = self.scope.tables[name].table
            assert table is not None
            axes = ", ".join(axis for axis, _ in table.axes)
            raise self.error(f"{name!r} is a table", f"; write {name}[{axes}]")
        if name in functions:
            raise self.error(f"{name!r} is a function", f"; write {name}(...)")
        known = [*self.bound, *self.scope.names, *self.scope.tables, *functions]
        raise self.error(f"unknown name {shortened(name)}", did_you_mean(name[:80], known))
