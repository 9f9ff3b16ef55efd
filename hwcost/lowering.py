"""Sympy -> graph: each kind of expression becomes quotients, primitives and cases."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import ceil, floor
from typing import Any

import sympy
from sympy.core.relational import Relational
from sympy.functions.elementary.piecewise import ExprCondPair
from sympy.logic.boolalg import ITE, BooleanFalse, BooleanTrue

from hwcost.errors import FormulaError
from hwcost.irrational import root, with_based_logs, with_joined_roots
from hwcost.quotient import ONE, ZERO, Graph, Table, Term, common_powers, raised, single, times

#: A number, the node of a condition, or a case: (value, condition).
Lowered = Term | int | tuple[Term, int]

#: Powers up to here are multiplied out; beyond, and for roots beyond, ``pow`` computes them.
MOST_FACTORS = 1024
HIGHEST_ROOT = 64

_COMPARISONS = {">": "gt", ">=": "ge", "<": "lt", "<=": "le", "==": "eq", "!=": "ne"}


def lower(expr: sympy.Basic) -> tuple[Graph, int]:
    """Return a graph and the node of the expression's value in it.

    Raises:
        FormulaError: the expression has a function or a constant that formulas do not have.
    """
    graph = Graph()
    lowered = _Lowering(graph).lower(expr)
    if isinstance(lowered, tuple) and not isinstance(lowered, Term):
        raise FormulaError("a case stands outside of its list of cases")
    return graph, graph.value(lowered) if isinstance(lowered, Term) else lowered


class _Lowering:
    """One walk over an expression; shared parts are visited once."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def lower(self, expr: sympy.Basic) -> Any:
        # By identity: hashing and comparing sympy trees recurses as deep as they are.
        done: dict[int, Lowered] = {}
        pending = [expr]
        while pending:
            node = pending[-1]
            waiting = [a for a in node.args if id(a) not in done]
            if waiting:
                pending.extend(waiting)
                continue
            pending.pop()
            if id(node) not in done:
                done[id(node)] = self._lower_one(node, [done[id(a)] for a in node.args])
        return done[id(expr)]

    def _lower_one(self, node: Any, args: list[Any]) -> Lowered:
        if getattr(type(node), "table", None) is not None:
            return self._lookup(type(node).table, args)
        for kind in type(node).__mro__:
            if kind in _RULES:
                return _RULES[kind](self, node, args)
        raise FormulaError(f"formulas have no {type(node).__name__!r}")

    def column(self, node: Any, args: list[Any]) -> Term:
        nonnegative = bool(node.is_nonnegative)
        return single(self.graph.add("column", node.name, nonnegative=nonnegative))

    def rational(self, node: Any, args: list[Any]) -> Term:
        return Term(Fraction(int(node.p), int(node.q)))

    def real(self, node: Any, args: list[Any]) -> Term:
        if isinstance(node, sympy.Float):
            return Term(Fraction(int(sympy.Rational(node).p), int(sympy.Rational(node).q)))
        return single(self.graph.add("real", float(node), nonnegative=bool(node > 0)))

    def nothing(self, node: Any, args: list[Any]) -> Term:
        raise FormulaError(f"formulas have no {str(node)!r}; is there a division by zero")

    def add(self, node: Any, args: list[Term]) -> Term:
        return self.graph.total(args)

    def mul(self, node: Any, args: list[Term]) -> Term:
        return with_joined_roots(self.graph, with_based_logs(self.graph, times(args)))

    def pow(self, node: Any, args: list[Term]) -> Term:
        base, exponent = args
        if exponent.powers:
            return self._general_pow(base, exponent)
        whole, degree = exponent.coef.numerator, exponent.coef.denominator
        if abs(whole) > MOST_FACTORS or degree > HIGHEST_ROOT:
            return self._general_pow(base, exponent)
        if degree == 1:
            return raised(base, whole)
        return with_joined_roots(self.graph, raised(root(self.graph, base, degree), whole))

    def _general_pow(self, base: Term, exponent: Term) -> Term:
        nodes = self.graph.value(base), self.graph.value(exponent)
        return single(self.graph.call("pow", *nodes, nonnegative=self.graph.nonnegative[nodes[0]]))

    def _call(self, name: str, arg: Term, nonnegative: bool = True) -> Term:
        return single(self.graph.call(name, self.graph.value(arg), nonnegative=nonnegative))

    def exp(self, node: Any, args: list[Term]) -> Term:
        return self._call("exp", args[0])

    def log(self, node: Any, args: list[Term]) -> Term:
        return self._call("log", args[0], nonnegative=False)

    def rounded(self, node: Any, args: list[Term]) -> Term:
        up = isinstance(node, sympy.ceiling)
        return self._rounded(args[0], up)

    def _rounded(self, arg: Term, up: bool) -> Term:
        if not arg.powers:
            return Term(Fraction(ceil(arg.coef) if up else floor(arg.coef)))
        number = self.graph.value(arg)
        name = "ceil" if up else "floor"
        return single(self.graph.call(name, number, nonnegative=self.graph.nonnegative[number]))

    def mod(self, node: Any, args: list[Term]) -> Term:
        whole = self._rounded(times((args[0], raised(args[1], -1))), up=False)
        return self.graph.total((args[0], times((Term(Fraction(-1)), args[1], whole))))

    def extreme(self, node: Any, args: list[Term]) -> Term:
        name = "max" if isinstance(node, sympy.Max) else "min"
        scale, nodes = self.graph.scaled(args)
        best = nodes[0]
        for number in nodes[1:]:
            signs = self.graph.signs((best, number))
            sign = any(signs) if name == "max" else all(signs)
            best = self.graph.call(name, best, number, nonnegative=sign)
        return times((scale, single(best)))

    def abs(self, node: Any, args: list[Term]) -> Term:
        factors = [Term(abs(args[0].coef))]
        for number, exponent in args[0].powers:
            if not self.graph.nonnegative[number] and exponent % 2:
                number = self.graph.call("abs", number, nonnegative=True)
            factors.append(single(number, exponent))
        return times(factors)

    def _lookup(self, table: Any, args: list[Term]) -> Term:
        plain = Table(table.name, tuple((n, tuple(v)) for n, v in table.axes), tuple(table.values))
        if len(args) != len(plain.axes):
            raise FormulaError(f"{plain.name!r} has {len(plain.axes)} axes, not {len(args)}")
        return self._whole_lookup(plain, [self.graph.value(a) for a in args])

    def _whole_lookup(self, table: Table, args: list[int]) -> Term:
        """A table of whole numbers over their common denominator, like any other quotient."""
        scale, numbers = self.graph.scaled([Term(Fraction(v)) for v in table.values])
        values = tuple(self.graph.nodes[n].data for n in numbers)
        whole = table._replace(values=values)
        sign = min(values, default=0) >= 0
        return times((scale, single(self.graph.add("lookup", whole, args, sign))))

    def case(self, node: Any, args: list[Any]) -> tuple[Term, int]:
        return args[0], args[1]

    def cases(self, node: Any, args: list[tuple[Term, int]]) -> Term:
        taken, rest = [], None
        for value, condition in args:
            if self._is_constant(condition, True):
                rest = value
                break
            if not self._is_constant(condition, False):
                taken.append((value, condition))
        values = [value for value, _ in taken] + [v for v in (rest,) if v is not None]
        scale, nodes = self.graph.scaled(values)
        nodes += [self.graph.add("fail", None)] if rest is None else []
        return times((scale, single(self._select([c for _, c in taken], nodes))))

    def _select(self, conditions: Sequence[int], values: Sequence[int]) -> int:
        # A later condition that may raise is evaluated only on the rows that reach it.
        for i in range(1, len(conditions)):
            if self.graph.raising[conditions[i]]:
                values = [*values[:i], self._select(conditions[i:], values[i:])]
                conditions = conditions[:i]
                break
        if not conditions:
            return values[0]
        sign = all(self.graph.signs(values))
        return self.graph.add("select", len(conditions), (*conditions, *values), sign)

    def _is_constant(self, condition: int, value: bool) -> bool:
        node = self.graph.nodes[condition]
        return node.kind == "truth" and node.data is value

    def relation(self, node: Any, args: list[Term]) -> int:
        if not all(isinstance(a, Term) for a in args):
            raise FormulaError("conditions cannot be compared with each other")
        name = _COMPARISONS[node.rel_op]
        over = common_powers(args)
        if not all(self.graph.nonnegative[n] for n, _ in over.powers):
            difference = self.graph.total((args[0], times((Term(Fraction(-1)), args[1]))))
            args, over = [difference, ZERO], ONE
        _, nodes = self.graph.scaled([times((a, over)) for a in args])
        return self.graph.call(name, *nodes)

    def truth(self, node: Any, args: list[Any]) -> int:
        return self.graph.add("truth", isinstance(node, BooleanTrue))

    def connective(self, node: Any, args: list[int]) -> int:
        name = "and" if isinstance(node, sympy.And) else "or"
        joined = args[0]
        for condition in args[1:]:
            joined = self.graph.call(name, joined, condition)
        return joined

    def negation(self, node: Any, args: list[int]) -> int:
        return self.graph.call("not", args[0])

    def choice(self, node: Any, args: list[int]) -> int:
        chosen = self.graph.call("and", args[0], args[1])
        other = self.graph.call("and", self.graph.call("not", args[0]), args[2])
        return self.graph.call("or", chosen, other)


#: Class of a sympy node -> what it becomes; the first base class with an entry counts.
_RULES: dict[type, Callable[[_Lowering, Any, list[Any]], Lowered]] = {
    sympy.Symbol: _Lowering.column,
    sympy.Rational: _Lowering.rational,
    sympy.Float: _Lowering.real,
    sympy.core.numbers.NumberSymbol: _Lowering.real,
    sympy.core.numbers.Infinity: _Lowering.nothing,
    sympy.core.numbers.NegativeInfinity: _Lowering.nothing,
    sympy.core.numbers.ComplexInfinity: _Lowering.nothing,
    sympy.core.numbers.NaN: _Lowering.nothing,
    sympy.Add: _Lowering.add,
    sympy.Mul: _Lowering.mul,
    sympy.Pow: _Lowering.pow,
    sympy.exp: _Lowering.exp,
    sympy.log: _Lowering.log,
    sympy.ceiling: _Lowering.rounded,
    sympy.floor: _Lowering.rounded,
    sympy.Mod: _Lowering.mod,
    sympy.Max: _Lowering.extreme,
    sympy.Min: _Lowering.extreme,
    sympy.Abs: _Lowering.abs,
    sympy.Piecewise: _Lowering.cases,
    ExprCondPair: _Lowering.case,
    Relational: _Lowering.relation,
    BooleanTrue: _Lowering.truth,
    BooleanFalse: _Lowering.truth,
    sympy.And: _Lowering.connective,
    sympy.Or: _Lowering.connective,
    sympy.Not: _Lowering.negation,
    ITE: _Lowering.choice,
}
