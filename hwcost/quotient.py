"""Exact quotients of integer-valued expressions, and the graph that they are made of.

Every number is carried as a quotient for as long as possible, so that evaluating it in floating
point divides once, at the end: the only rounding. That makes the arguments of ceil, floor and
comparisons exact while whole numbers stay below 2**53, in time linear in the formula (unlike
``sympy.together``, which expands polynomials).
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import gcd, lcm
from typing import Any, NamedTuple

from hwcost.errors import FormulaError

#: Whole numbers up to here are exact in float64.
MOST_EXACT = 2**53

#: Denominators that contain sizes and that one sum brings over a common one; beyond, the
#: products of the others grow faster than the exactness is worth.
MOST_DENOMINATORS = 3

#: Bits of a coefficient; what is longer comes from a power that nobody meant.
LONGEST_NUMBER = 1 << 14

#: Nested cases; each level becomes a program of its own.
DEEPEST_SELECT = 50


class Table(NamedTuple):
    """A look-up table: its axes with their known values, and its values in row-major order."""

    name: str
    axes: tuple[tuple[str, tuple[Fraction, ...]], ...]
    values: tuple[Fraction, ...]


class Node(NamedTuple):
    """An operation of the graph; ``args`` are the numbers of earlier nodes.

    Kinds, with their data: ``column`` (name), ``number`` (Fraction), ``real`` (float),
    ``product`` (exponents), ``sum`` (constant, coefficients), ``ratio`` (coefficient; args are
    numerator and denominator), ``call`` (name of a primitive), ``lookup`` (Table), ``select``
    (number of conditions; args are these and one value more, the last for "else"), ``fail``.
    """

    kind: str
    data: Any
    args: tuple[int, ...] = ()


class Term(NamedTuple):
    """``coef`` times powers of nodes, each (node, exponent), sorted, no exponent 0."""

    coef: Fraction
    powers: tuple[tuple[int, int], ...] = ()

    @property
    def over(self) -> tuple[tuple[int, int], ...]:
        """The powers of the denominator, exponents positive."""
        return tuple((node, -e) for node, e in self.powers if e < 0)


#: Most coefficients are this very object, which is faster to recognise than to multiply by.
_UNIT = Fraction(1)

ZERO, ONE = Term(Fraction(0)), Term(_UNIT)


def single(node: int, exponent: int = 1) -> Term:
    """Return the power of a node."""
    return Term(_UNIT, ((node, exponent),))


def times(terms: Iterable[Term]) -> Term:
    """Return the product."""
    coef, powers = _UNIT, dict[int, int]()
    for term in terms:
        if term.coef is not _UNIT:
            coef *= _bounded(term.coef)
        for node, exponent in term.powers:
            powers[node] = powers.get(node, 0) + exponent
    return Term(coef, _sorted(powers)) if coef else ZERO


def raised(term: Term, exponent: int) -> Term:
    """Return the power.

    Raises:
        FormulaError: 0 to a negative power, or a coefficient of thousands of digits.
    """
    if exponent < 0 and not term.coef:
        raise FormulaError("division by zero")
    size = term.coef.numerator.bit_length() + term.coef.denominator.bit_length() - 2
    if size * abs(exponent) > LONGEST_NUMBER:
        raise FormulaError(f"a number to the power of {exponent} is too large")
    return Term(term.coef**exponent, _sorted({n: e * exponent for n, e in term.powers}))


def common_denominator(terms: Iterable[Term]) -> int:
    """Return the least number that makes all coefficients whole; 1 where that is not exact."""
    terms = list(terms)
    factor = lcm(*(t.coef.denominator for t in terms))
    largest = max((abs(t.coef * factor) for t in terms), default=0)
    return factor if factor <= MOST_EXACT and largest <= MOST_EXACT else 1


def common_powers(terms: Iterable[Term]) -> Term:
    """Return the least product that makes all of the terms' denominators numbers."""
    below: dict[int, int] = {}
    for term in terms:
        for node, exponent in term.over:
            below[node] = max(below.get(node, 0), exponent)
    return Term(_UNIT, _sorted(below))


def too_large(what: str, most: int) -> FormulaError:
    """Return the error for a formula that no person wrote."""
    return FormulaError(f"the formula is too large: more than {most} {what}")


def _sorted(powers: dict[int, int]) -> tuple[tuple[int, int], ...]:
    return tuple(sorted((node, e) for node, e in powers.items() if e))


def _bounded(coef: Fraction) -> Fraction:
    if coef.numerator.bit_length() + coef.denominator.bit_length() > LONGEST_NUMBER:
        raise FormulaError("a number has thousands of digits")
    return coef


class Graph:
    """Nodes in the order of evaluation, equal ones only once.

    Attributes:
        nodes: the operations.
        nonnegative: whether a node is known not to be negative.
        raising: whether evaluating a node can raise.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.nonnegative: list[bool] = []
        self.raising: list[bool] = []
        self._depth: list[int] = []
        self._numbers: dict[Node, int] = {}
        self._demanded: dict[int, frozenset[int]] = {}

    def add(self, kind: str, data: Any, args: Sequence[int] = (), nonnegative: bool = False) -> int:
        """Return the number of a node, which is new if there is none like it."""
        node = Node(kind, data, tuple(args))
        if node in self._numbers:
            return self._numbers[node]
        depth = max((self._depth[a] for a in args), default=0) + (kind == "select")
        if depth > DEEPEST_SELECT:
            raise too_large("nested cases", DEEPEST_SELECT)
        self._depth.append(depth)
        self.nodes.append(node)
        self.nonnegative.append(nonnegative)
        self.raising.append(kind in ("lookup", "fail") or any(self.raising[a] for a in args))
        self._numbers[node] = len(self.nodes) - 1
        return len(self.nodes) - 1

    def demanded(self, root: int) -> frozenset[int]:
        """Return the nodes that the root needs on every row, whatever the cases that rows take."""
        if root in self._demanded:
            return self._demanded[root]
        needed: set[int] = set()
        pending = [root]
        while pending:
            number = pending.pop()
            if number in needed:
                continue
            needed.add(number)
            node = self.nodes[number]
            pending.extend(node.args[: node.data] if node.kind == "select" else node.args)
            if node.kind == "select":
                needs = [self.demanded(a) for a in node.args[node.data :]]
                needed |= frozenset.intersection(*needs)
        self._demanded[root] = frozenset(needed)
        return self._demanded[root]

    def signs(self, args: Iterable[int]) -> list[bool]:
        """Return for each node whether it is known not to be negative."""
        return [self.nonnegative[a] for a in args]

    def number(self, value: Fraction) -> int:
        """Return the node of a constant."""
        return self.add("number", value, nonnegative=value >= 0)

    def call(self, name: str, *args: int, nonnegative: bool = False) -> int:
        """Return the node of a primitive applied to nodes."""
        return self.add("call", name, args, nonnegative)

    def value(self, term: Term) -> int:
        """Return the node that a term is the value of."""
        if not term.powers:
            return self.number(term.coef)
        numerator = self._product([(n, e) for n, e in term.powers if e > 0])
        if term.coef == 1 and not term.over:
            return numerator
        args = (numerator, self._product(term.over))
        sign = term.coef >= 0 and all(self.signs(args))
        return self.add("ratio", term.coef, args, sign)

    def total(self, terms: Iterable[Term]) -> Term:
        """Return the sum, over one denominator where that stays exact and small."""
        terms = _like_terms(terms)
        if len(terms) < 2:
            return terms[0] if terms else ZERO
        if merged := self._over_one_denominator(terms):
            return merged
        groups: dict[tuple[tuple[int, int], ...], list[Term]] = {}
        for term in terms:
            groups.setdefault(term.over, []).append(term)
        if len(groups) > 1:
            terms = [self.total(group) for group in groups.values()]
        return self._sum([single(self.value(t)) for t in terms])

    def scaled(self, terms: Sequence[Term]) -> tuple[Term, list[int]]:
        """Return 1/f and the nodes of f*term, with f the common denominator of the numbers."""
        factor = common_denominator(terms)
        nodes = [self.value(Term(t.coef * factor, t.powers)) for t in terms]
        return Term(Fraction(1, factor)), nodes

    def _product(self, powers: Sequence[tuple[int, int]]) -> int:
        if not powers:
            return self.number(Fraction(1))
        if len(powers) == 1 and powers[0][1] == 1:
            return powers[0][0]
        nodes, exponents = zip(*powers, strict=True)
        sign = all(self.nonnegative[n] or e % 2 == 0 for n, e in powers)
        return self.add("product", exponents, nodes, sign)

    def _over_one_denominator(self, terms: list[Term]) -> Term | None:
        below = common_powers(terms)
        factor = lcm(*(t.coef.denominator for t in terms))
        if factor > MOST_EXACT or len(below.powers) > MOST_DENOMINATORS:
            return None
        if factor == 1 and not below.powers:
            return self._sum(terms)
        scale = Term(Fraction(factor), below.powers)
        tops = _like_terms(times((t, scale)) for t in terms)
        if factor > 1 and any(abs(t.coef) > MOST_EXACT for t in tops):
            return None
        return times((self._sum(tops), raised(scale, -1)))

    def _sum(self, terms: list[Term]) -> Term:
        """The sum of terms without denominators, their common factor taken out."""
        if len(terms) < 2:
            return terms[0] if terms else ZERO
        common = gcd(*(t.coef.numerator for t in terms))
        constant = sum((t.coef for t in terms if not t.powers), Fraction(0)) / common
        items = sorted((self._power(t), t.coef / common) for t in terms if t.powers)
        nodes, coefs = zip(*items, strict=True)
        sign = constant >= 0 and all(c >= 0 for c in coefs) and all(self.signs(nodes))
        node = self.add("sum", (constant, coefs), nodes, sign)
        return Term(Fraction(common), ((node, 1),))

    def _power(self, term: Term) -> int:
        return self._product(term.powers)


def _like_terms(terms: Iterable[Term]) -> list[Term]:
    coefs: dict[tuple[tuple[int, int], ...], Fraction] = {}
    for term in terms:
        coefs[term.powers] = coefs.get(term.powers, Fraction(0)) + term.coef
    return [Term(coef, powers) for powers, coef in coefs.items() if coef]
