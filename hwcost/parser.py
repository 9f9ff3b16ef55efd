"""The walk over a formula's syntax tree.

Every limit is checked before sympy builds the expression that would break it, so that a hostile
formula is refused in milliseconds. Comparisons, ``where``, ``min`` and ``max`` are built without
sympy's reasoning about them (see ``nodes``).
"""

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, partial
from typing import Any, NamedTuple

import sympy

from hwcost.errors import FormulaError, did_you_mean
from hwcost.nodes import Maximum, Minimum, TableLookup, Where, is_condition

MAX_NESTING = 60
MAX_NODES = 20_000
MAX_DEGREE = 100
MAX_EXPONENT = 16
MAX_BITS = 256
MAX_CHOICES = 64
_MAX_DIGITS, _MAX_DECIMAL_EXPONENT = 30, 60


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


class Parser:
    """Turns one formula into sympy; ``number`` and ``condition`` call each other by node type."""

    def __init__(self, text: str, scope: Scope) -> None:
        self.text, self.scope = text, scope
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
        handler = _NUMBERS.get(type(node))
        if handler is None:
            raise self.not_allowed(node, "a condition", "; write where(condition, a, b)")
        return self._nested(handler, node)

    def condition(self, node: ast.expr, negated: bool = False) -> sympy.Basic:
        """The value of a node that has to be a condition, or its negation."""
        handler = _CONDITIONS.get(type(node))
        if handler is None or (isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.Not)):
            raise self.not_allowed(node, "a number", "; write a condition, such as x != 0")
        return self._nested(handler, node, negated)

    def _nested(self, handler: Callable[..., Any], node: ast.expr, *args: bool) -> Any:
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
        if type(node) in _NUMBERS or type(node) in _CONDITIONS:
            return self.error(f"{other} ({shortened(self.source(node))})", hint)
        return self.error(f"{shortened(self.source(node))} is not allowed")

    def source(self, node: ast.expr) -> str:
        """The text of a node; the whole formula is on one line and in ASCII."""
        return self.text[node.col_offset : node.end_col_offset]

    def make(self, build: Callable[..., Any], *parts: Any, times: int = 1, more: int = 1) -> Any:
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
        name = self.source(node).replace(" ", "")
        if name in self.bound:
            return self.bound[name]
        if name in self.scope.names:
            return self.scope.names[name]
        if name in self.scope.tables:
            table = self.scope.tables[name].table
            assert table is not None
            axes = ", ".join(axis for axis, _ in table.axes)
            raise self.error(f"{name!r} is a table", f"; write {name}[{axes}]")
        if name in FUNCTIONS:
            raise self.error(f"{name!r} is a function", f"; write {name}(...)")
        known = [*self.bound, *self.scope.names, *self.scope.tables, *FUNCTIONS]
        raise self.error(f"unknown name {shortened(name)}", did_you_mean(name[:80], known))


def _constant(p: Parser, node: ast.Constant) -> sympy.Rational:
    text = p.source(node)
    if isinstance(node.value, bool) or not isinstance(node.value, int | float):
        raise p.error(f"unknown name {shortened(text)}")
    mantissa, _, exponent = text.lower().partition("e")
    if len(mantissa) > _MAX_DIGITS or abs(int(exponent or 0)) > _MAX_DECIMAL_EXPONENT:
        raise p.error(f"number {shortened(text)} has too many digits")
    value = Fraction(text)
    return sympy.Rational(value.numerator, value.denominator)


def _name(p: Parser, node: ast.expr) -> sympy.Expr:
    value = p.name(node)
    if is_condition(value):
        name = p.source(node)
        raise p.error(f"{name!r} is a condition", f"; write where({name}, a, b)")
    return value


def _name_condition(p: Parser, node: ast.expr, negated: bool) -> sympy.Basic:
    value = p.name(node)
    if not is_condition(value):
        name = p.source(node)
        raise p.error(f"{name!r} is a number", f"; write a condition, such as {name} != 0")
    return sympy.Not(value) if negated else value


def _spine(node: ast.expr, operators: tuple[type, ...]) -> list[tuple[type, ast.expr]]:
    """``a - b + c`` as its operands, each with the operator before it, without recursion."""
    parts: list[tuple[type, ast.expr]] = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, operators):
        parts.append((type(node.op), node.right))
        node = node.left
    return [(operators[0], node), *reversed(parts)]


def _binary(p: Parser, node: ast.BinOp) -> sympy.Expr:
    if isinstance(node.op, ast.Add | ast.Sub):
        return _sum(p, _spine(node, (ast.Add, ast.Sub)))
    if isinstance(node.op, ast.Mult | ast.Div):
        return _product(p, _spine(node, (ast.Mult, ast.Div)))
    if type(node.op) not in _BINARY:
        raise p.error(f"{shortened(p.source(node))} is not allowed")
    return _BINARY[type(node.op)](p, p.number(node.left), p.number(node.right))


def _sum(p: Parser, parts: list[tuple[type, ast.expr]]) -> sympy.Expr:
    def build(*terms: sympy.Expr) -> sympy.Expr:
        signed = zip(parts, terms, strict=True)
        return sympy.Add(*(-term if sign is ast.Sub else term for (sign, _), term in signed))

    return p.make(build, *(p.number(term) for _, term in parts), more=2)


def _product(p: Parser, parts: list[tuple[type, ast.expr]]) -> sympy.Expr:
    factors = [p.number(factor) for _, factor in parts]
    for (sign, _), factor in zip(parts, factors, strict=True):
        if sign is ast.Div and factor == 0:
            raise p.error("division by zero")

    def build(*factors: sympy.Expr) -> sympy.Expr:
        signed = zip(parts, factors, strict=True)
        return sympy.Mul(*(1 / factor if sign is ast.Div else factor for (sign, _), factor in signed))

    return p.make(build, *factors, more=2)


def _floor_divided(p: Parser, a: sympy.Expr, b: sympy.Expr) -> sympy.Expr:
    if b == 0:
        raise p.error("division by zero")
    return p.make(lambda a, b: sympy.floor(a / b), a, b, more=3)


def _remainder(p: Parser, a: sympy.Expr, b: sympy.Expr) -> sympy.Expr:
    if b == 0:
        raise p.error("division by zero")
    return p.make(lambda a, b: a - b * sympy.floor(a / b), a, b, times=2, more=5)


def _power(p: Parser, base: sympy.Expr, exponent: sympy.Expr) -> sympy.Expr:
    if not exponent.is_Rational:
        if not (base.is_Rational and base > 0):
            raise p.error("a size in an exponent", "; only of a positive number, such as 2**a_bits")
        if measure(exponent).grows:
            raise p.error("an exponent inside an exponent")
    elif abs(exponent) > MAX_EXPONENT or measure(base).bits * abs(exponent) > 2 * MAX_BITS:
        raise p.error("a power is too large")
    elif base == 0 and exponent < 0:
        raise p.error("division by zero")
    elif exponent.q > 1 and base.as_coeff_Mul()[0] < 0:
        raise p.error("the root of a negative number")
    return p.make(sympy.Pow, base, exponent)


def _root(p: Parser, value: sympy.Expr) -> sympy.Expr:
    return _power(p, value, sympy.Rational(1, 2))


def _logarithm(p: Parser, value: sympy.Expr) -> sympy.Expr:
    if value.is_Rational and value <= 0:
        raise p.error(f"log2({value})")
    return p.make(lambda x: sympy.log(x, 2), value, more=3)


def _exponential(p: Parser, value: sympy.Expr) -> sympy.Expr:
    if measure(value).grows:
        raise p.error("an exponent inside an exponent")
    if value.is_Rational and abs(value) > MAX_BITS * 0.69:
        raise p.error("a number is too large")
    return p.make(sympy.exp, value)


_BINARY: dict[type, Callable[[Parser, sympy.Expr, sympy.Expr], sympy.Expr]] = {
    ast.FloorDiv: _floor_divided,
    ast.Mod: _remainder,
    ast.Pow: _power,
}


def _unary(p: Parser, node: ast.UnaryOp) -> sympy.Expr:
    if isinstance(node.op, ast.Not):
        raise p.not_allowed(node, "a condition", "; write where(condition, a, b)")
    value = p.number(node.operand)
    return p.make(lambda x: -x, value) if isinstance(node.op, ast.USub) else value


def _call(p: Parser, node: ast.Call) -> sympy.Expr:
    name = p.source(node.func)
    if name not in FUNCTIONS:
        hint = did_you_mean(name[:80], FUNCTIONS) or f"; known: {', '.join(FUNCTIONS)}"
        raise p.error(f"unknown function {shortened(name)}", hint)
    least, most, build = FUNCTIONS[name]
    if node.keywords or not least <= len(node.args) <= most:
        due = str(least) if least == most else f"{least} to {most}"
        found = len(node.args) + len(node.keywords)
        raise p.error(f"{name}() has {found} arguments; expected {due}")
    return build(p, *node.args)


def _of_numbers(build: Callable[..., sympy.Expr]) -> Callable[..., sympy.Expr]:
    return lambda p, *nodes: build(p, *(p.number(node) for node in nodes))


def _plain(function: Callable[..., sympy.Expr]) -> Callable[..., sympy.Expr]:
    return _of_numbers(lambda p, *values: p.make(function, *values, more=2))


def _where(p: Parser, condition: ast.expr, then: ast.expr, other: ast.expr) -> sympy.Expr:
    parts = p.condition(condition), p.number(then), p.number(other)
    return p.make(lambda c, a, b: Where((a, c), (b, sympy.true)), *parts, more=2)


def _largest(p: Parser, choice: ast.expr, condition: ast.expr) -> sympy.Expr:
    """The largest number of a list for which a condition holds, else the smallest."""
    match choice:
        case ast.Compare(ast.Name(name), [ast.In()], [ast.List(items) | ast.Tuple(items)]):
            pass
        case _:
            raise p.error("largest() needs a list", ", as in largest(x in [8, 4, 2, 1], x*cout <= 512)")
    if name in p.bound or name in p.scope.names or name in p.scope.tables or name in FUNCTIONS:
        raise p.error(f"{name!r} has a meaning already")
    values = [p.number(item) for item in items]
    if not 0 < len(values) <= MAX_CHOICES or not all(value.is_Rational for value in values):
        raise p.error(f"largest() needs 1 to {MAX_CHOICES} plain numbers to choose from")
    first, *rest = sorted(set(values))
    parts = []
    for value in reversed(rest):
        p.bound[name] = value
        parts.append(p.condition(condition))
    p.bound[name] = first
    p.condition(condition)
    del p.bound[name]
    if not rest:
        return first

    def build(*conditions: sympy.Basic) -> sympy.Expr:
        return Where(*zip(reversed(rest), conditions, strict=True), (first, sympy.true))

    return p.make(build, *parts, more=2)


#: Name -> least and most arguments, and what builds the call from their nodes.
FUNCTIONS: dict[str, tuple[int, int, Callable[..., sympy.Expr]]] = {
    "ceil": (1, 1, _plain(sympy.ceiling)),
    "floor": (1, 1, _plain(sympy.floor)),
    "min": (2, 32, _plain(Minimum)),
    "max": (2, 32, _plain(Maximum)),
    "abs": (1, 1, _plain(sympy.Abs)),
    "sqrt": (1, 1, _of_numbers(_root)),
    "log2": (1, 1, _of_numbers(_logarithm)),
    "exp": (1, 1, _of_numbers(_exponential)),
    "where": (3, 3, _where),
    "largest": (2, 2, _largest),
}


def _lookup(p: Parser, node: ast.Subscript) -> sympy.Expr:
    name = p.source(node.value)
    if name not in p.scope.tables:
        raise p.error(f"unknown table {shortened(name)}", did_you_mean(name[:80], p.scope.tables))
    lookup = p.scope.tables[name]
    assert lookup.table is not None
    indices = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    axes = [axis for axis, _ in lookup.table.axes]
    if len(indices) != len(axes):
        due = f"{name}[{', '.join(axes)}]"
        raise p.error(f"{name!r} has {len(axes)} axes, not {len(indices)},", f"; write {due}")
    return p.make(lookup, *(p.number(index) for index in indices))


_Relation = Callable[..., sympy.Basic]
#: Operator -> the relation and its opposite.
_RELATIONS: dict[type, tuple[_Relation, _Relation]] = {
    ast.Lt: (sympy.Lt, sympy.Ge),
    ast.LtE: (sympy.Le, sympy.Gt),
    ast.Gt: (sympy.Gt, sympy.Le),
    ast.GtE: (sympy.Ge, sympy.Lt),
    ast.Eq: (sympy.Eq, sympy.Ne),
    ast.NotEq: (sympy.Ne, sympy.Eq),
}


def _comparison(p: Parser, node: ast.Compare, negated: bool) -> sympy.Basic:
    values = [p.number(value) for value in (node.left, *node.comparators)]
    relations = []
    for operator, a, b in zip(node.ops, values, values[1:], strict=False):
        if type(operator) not in _RELATIONS:
            raise p.error("'in' and 'is' have no meaning", "; compare with '=='")
        relation = _RELATIONS[type(operator)][negated]
        # sympy would try hard to decide a relation between expressions.
        decided = a.is_Rational and b.is_Rational
        relations.append(p.make(partial(relation, evaluate=decided), a, b))
    return _joined(p, relations, negated)


def _joined(p: Parser, conditions: list[sympy.Basic], by_or: bool) -> sympy.Basic:
    if len(conditions) == 1:
        return conditions[0]
    return p.make(sympy.Or if by_or else sympy.And, *conditions)


def _several(p: Parser, node: ast.BoolOp, negated: bool) -> sympy.Basic:
    conditions = [p.condition(value, negated) for value in node.values]
    return _joined(p, conditions, isinstance(node.op, ast.Or) != negated)


def _not(p: Parser, node: ast.UnaryOp, negated: bool) -> sympy.Basic:
    return p.condition(node.operand, not negated)


_NUMBERS: dict[type, Callable[..., Any]] = {
    ast.Constant: _constant,
    ast.Name: _name,
    ast.Attribute: _name,
    ast.BinOp: _binary,
    ast.UnaryOp: _unary,
    ast.Call: _call,
    ast.Subscript: _lookup,
}
_CONDITIONS: dict[type, Callable[..., Any]] = {
    ast.Compare: _comparison,
    ast.BoolOp: _several,
    ast.UnaryOp: _not,
    ast.Name: _name_condition,
    ast.Attribute: _name_condition,
}
