"""Roots and logarithms, in the form whose result is whole where the exact one is."""

from fractions import Fraction

from hwcost.quotient import ONE, ZERO, Graph, Term, raised, single, times

#: Primitives that take roots -> their degree; None where it is their second operand.
_DEGREES: dict[str, int | None] = {"sqrt": 2, "root": None}


def root(graph: Graph, arg: Term, degree: int) -> Term:
    """Return the root of a term."""
    if arg in (ONE, ZERO):
        return arg
    if degree == 2:
        return single(graph.call("sqrt", graph.value(arg), nonnegative=True))
    nodes = graph.value(arg), graph.number(Fraction(degree))
    return single(graph.call("root", *nodes, nonnegative=True))


def with_joined_roots(graph: Graph, term: Term) -> Term:
    """Take roots last: sqrt(2)*sqrt(x) is whole at x = 2 only as sqrt(2*x)."""
    if all(_degree(graph, number) is None for number, _ in term.powers):
        return term
    factors = [Term(term.coef)]
    inside: dict[tuple[int, int], list[Term]] = {}
    for number, exponent in term.powers:
        degree = _degree(graph, number)
        if degree is None:
            factors.append(single(number, exponent))
            continue
        sign, arg = 1 if exponent > 0 else -1, _as_term(graph, graph.nodes[number].args[0])
        outside, left = divmod(abs(exponent), degree)
        factors.append(raised(arg, sign * outside))
        inside.setdefault((degree, sign), []).append(raised(arg, left))
    roots = (raised(root(graph, times(i), d), sign) for (d, sign), i in inside.items())
    return times([*factors, *roots])


def _degree(graph: Graph, number: int) -> int | None:
    """The degree of a root of something that is not negative; None for anything else."""
    node = graph.nodes[number]
    if node.kind != "call" or node.data not in _DEGREES or not graph.nonnegative[node.args[0]]:
        return None
    return _DEGREES[node.data] or int(graph.nodes[node.args[1]].data)


def _as_term(graph: Graph, number: int) -> Term:
    node = graph.nodes[number]
    return Term(node.data) if node.kind == "number" else single(number)


def with_based_logs(graph: Graph, term: Term) -> Term:
    """Write log(x)/log(c) as one logarithm, which is exact at the powers of c."""
    powers = dict(term.powers)
    logs = [n for n in powers if _is_log(graph, n)]
    bases = [n for n in logs if _is_of_base(graph, n)]
    if not bases:
        return term
    for log in (n for n in logs if n not in bases):
        for base in bases:
            if powers[base] * powers[log] >= 0:
                continue
            shared = min(abs(powers[log]), abs(powers[base]))
            shared = shared if powers[log] > 0 else -shared
            joined = graph.call("logb", graph.nodes[log].args[0], graph.nodes[base].args[0])
            powers[joined] = powers.get(joined, 0) + shared
            powers[log] -= shared
            powers[base] += shared
    return times([Term(term.coef), *(single(n, e) for n, e in powers.items() if e)])


def _is_log(graph: Graph, number: int) -> bool:
    node = graph.nodes[number]
    return node.kind == "call" and node.data == "log"


def _is_of_base(graph: Graph, log: int) -> bool:
    """Whether it is the logarithm of a whole number above 1."""
    node = graph.nodes[graph.nodes[log].args[0]]
    return node.kind == "number" and bool(node.data > 1) and node.data.denominator == 1
