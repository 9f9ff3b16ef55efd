"""What formulas have: numbers, operators, functions, look-ups, conditions.

Comparisons, ``where``, ``min`` and ``max`` are built without sympy's reasoning about them
(see ``formula_nodes``); ``a % b`` is ``a - b*floor(a/b)``, whose slope is that of its parts.
"""

import ast
from fractions import Fraction
from functools import partial

import sympy

from hwcost.errors import did_you_mean, suggestion
from hwcost.formula_nodes import Absolute, Ceil, Floor, Maximum, Minimum, Where, is_condition
from hwcost.formula_parser import MAX_BITS, Grammar, Handler, Parser, measure, shortened

MAX_EXPONENT = 16
MAX_CHOICES = 64
#: Nodes of a relation: sympy tries to decide it again whenever something is substituted.
MAX_COMPARED = 400
_MAX_DIGITS, _MAX_DECIMAL_EXPONENT = 30, 60


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
        return sympy.Mul(*(1 / f if sign is ast.Div else f for (sign, _), f in signed))

    return p.make(build, *factors, more=2)


def _floor_divided(p: Parser, a: sympy.Expr, b: sympy.Expr) -> sympy.Expr:
    if b == 0:
        raise p.error("division by zero")
    return p.make(lambda a, b: Floor(a / b), a, b, more=3)


def _remainder(p: Parser, a: sympy.Expr, b: sympy.Expr) -> sympy.Expr:
    if b == 0:
        raise p.error("division by zero")
    return p.make(lambda a, b: a - b * Floor(a / b), a, b, times=2, more=5)


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


_BINARY: dict[type, Handler] = {
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
        hint = suggestion(name[:80], FUNCTIONS)
        raise p.error(f"unknown function {shortened(name)}", hint)
    least, most, build = FUNCTIONS[name]
    if node.keywords or not least <= len(node.args) <= most:
        due = str(least) if least == most else f"{least} to {most}"
        found = len(node.args) + len(node.keywords)
        raise p.error(f"{found} instead of {due} arguments of {name}()")
    return build(p, *node.args)


def _of_numbers(build: Handler) -> Handler:
    return lambda p, *nodes: build(p, *(p.number(node) for node in nodes))


def _plain(function: Handler) -> Handler:
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
            hint = ", as in largest(x in [8, 4, 2, 1], x*cout <= 512)"
            raise p.error("largest() needs a list", hint)
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


FUNCTIONS: dict[str, tuple[int, int, Handler]] = {
    "ceil": (1, 1, _plain(Ceil)),
    "floor": (1, 1, _plain(Floor)),
    "min": (2, 32, _plain(Minimum)),
    "max": (2, 32, _plain(Maximum)),
    "abs": (1, 1, _plain(Absolute)),
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


#: Operator -> the relation and its opposite.
_RELATIONS: dict[type, tuple[Handler, Handler]] = {
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
        if measure(a).nodes + measure(b).nodes > MAX_COMPARED:
            raise p.error(f"a comparison of more than {MAX_COMPARED} terms")
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


_NUMBERS: dict[type, Handler] = {
    ast.Constant: _constant,
    ast.Name: _name,
    ast.Attribute: _name,
    ast.BinOp: _binary,
    ast.UnaryOp: _unary,
    ast.Call: _call,
    ast.Subscript: _lookup,
}
_CONDITIONS: dict[type, Handler] = {
    ast.Compare: _comparison,
    ast.BoolOp: _several,
    ast.UnaryOp: _not,
    ast.Name: _name_condition,
    ast.Attribute: _name_condition,
}

GRAMMAR = Grammar(_NUMBERS, _CONDITIONS, FUNCTIONS)
