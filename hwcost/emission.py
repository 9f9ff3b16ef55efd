"""Graph -> program: what is known is computed now, the rest becomes steps.

What depends on numbers and given columns only is folded while the program is built; sums and
products gather their known parts first, so that as little as possible remains.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor

from hwcost.branches import Branches, first_groups, merged
from hwcost.errors import CostError, FormulaError
from hwcost.lookup import lookup
from hwcost.primitives import PRIMITIVES, Primitive
from hwcost.program import Program, Step, Values
from hwcost.quotient import Graph, Node

#: Steps of one formula, cases included; a formula of this size was not written by a person.
MOST_STEPS = 200_000


@dataclass(frozen=True)
class Slot:
    """A value that a program computes: step number ``index``, or input ``-1 - index``."""

    index: int


#: A value known now, or where it will be; tensors have shape ``(rows,)`` or ``(1,)``.
Operand = Slot | Tensor | float | bool

#: What a step reads: the place of a slot in the program's values, or a tensor.
Place = Callable[[Operand], Any]

#: (places of operands, the step's own place) -> the step.
Build = Callable[[Place, int], Step]


@dataclass
class Budget:
    """How many steps may still be emitted."""

    left: int = MOST_STEPS

    def spend(self) -> None:
        """Count one step.

        Raises:
            FormulaError: there were too many.
        """
        self.left -= 1
        if self.left < 0:
            raise FormulaError(f"the formula needs more than {MOST_STEPS} operations")


class Scope:
    """One program in the making: the formula itself, or a case of a ``select``.

    Args:
        graph: the operations.
        known: nodes whose values stand already.
        root: the node to compute.
        outer: the scope whose rows this one takes some of.
        rows: which rows these are, when that is known now.
    """

    def __init__(
        self,
        graph: Graph,
        known: Mapping[int, Operand],
        root: int,
        outer: "Scope | None" = None,
        rows: Tensor | None = None,
    ) -> None:
        self.graph, self.root, self.outer, self.rows = graph, root, outer, rows
        self.known: dict[int, Operand] = dict(known)
        self.captured: list[Slot | Tensor] = []
        self.demanded = graph.demanded(root)
        self.budget: Budget = outer.budget if outer else Budget()
        self._steps: list[Build] = []
        self._memo: dict[Any, Operand] = {}

    def program(self, inputs: int = 0) -> Program:
        """Return the program for the root, with the given inputs or the captured ones."""
        output = self.emit(self.root)
        if not isinstance(output, Slot):
            output = self.add(partial(_constant_step, output))
        inputs = inputs or len(self.captured)

        def place(operand: Operand) -> Any:
            if isinstance(operand, Slot):
                index = operand.index
                return 1 + inputs + index if index >= 0 else -index
            return _tensor(operand)

        steps = [build(place, 1 + inputs + k) for k, build in enumerate(self._steps)]
        return Program(inputs, tuple(steps), place(output))

    def emit(self, root: int) -> Operand:
        """Return the value of a node, after the steps that it needs."""
        pending = [root]
        while pending:
            number = pending[-1]
            waiting = self._advance(number) if number not in self.known else []
            if waiting:
                pending.extend(reversed(waiting))
            else:
                pending.pop()
        return self.known[root]

    def _advance(self, number: int) -> list[int]:
        """Set the node's value, or return the nodes to do first."""
        if self.outer and self.outer.offers(number):
            self.known[number] = self._capture(self.outer.emit(number))
            return []
        node = self.graph.nodes[number]
        if node.kind == "select":
            return self._advance_select(number, node)
        waiting = [a for a in node.args if a not in self.known]
        if not waiting:
            emitter = _EMITTERS[node.kind]
            self.known[number] = emitter(self, node, [self.known[a] for a in node.args])
        return waiting

    def offers(self, number: int) -> bool:
        """Whether the node has a value on all of the scope's rows, or will have in any case."""
        if number in self.known or number in self.demanded:
            return self.graph.nodes[number].kind not in ("number", "real", "truth")
        return self.outer is not None and self.outer.offers(number)

    def _capture(self, operand: Operand) -> Operand:
        """The outer scope's value on this scope's rows."""
        if isinstance(operand, Tensor) and len(operand) == 1 or isinstance(operand, float):
            return operand
        if isinstance(operand, Tensor) and self.rows is not None:
            return operand.index_select(0, self.rows)
        key = ("captured", _key(operand))
        if key not in self._memo:
            assert isinstance(operand, Slot | Tensor)
            self.captured.append(operand)
            self._memo[key] = Slot(-len(self.captured))
        return self._memo[key]

    def apply(self, name: str, *operands: Operand) -> Operand:
        """Return the value of a primitive: known if its operands are, else that of a new step."""
        simple = _simplified(name, operands)
        if simple is not None:
            return simple
        primitive = PRIMITIVES[name]
        if not any(isinstance(o, Slot) for o in operands):
            return _folded(primitive.forward, operands)
        key = (name, *map(_key, operands))
        if key not in self._memo:
            if name == "where" and not any(isinstance(o, Slot | Tensor) for o in operands[1:]):
                self._memo[key] = self.add(partial(_number_where_step, operands))
            else:
                self._memo[key] = self.add(partial(_primitive_step, PRIMITIVES[name], operands))
        return self._memo[key]

    def add(self, build: Build) -> Slot:
        """Append a step and return where its value will be."""
        self.budget.spend()
        self._steps.append(build)
        return Slot(len(self._steps) - 1)

    def _advance_select(self, number: int, node: Node) -> list[int]:
        conditions, values = node.args[: node.data], node.args[node.data :]
        waiting = [c for c in conditions if c not in self.known]
        if waiting:
            return waiting
        masks, cases = self._undecided([self.known[c] for c in conditions], values)
        if all(self._is_at_hand(c) for c in cases):
            waiting = [c for c in cases if c not in self.known]
            if not waiting:
                self.known[number] = self._where([*masks], [self.known[c] for c in cases])
            return waiting
        if not masks:
            self.demanded |= self.graph.demanded(cases[0])
            if cases[0] in self.known:
                self.known[number] = self.known[cases[0]]
                return []
            return cases
        self.known[number] = self._branches(masks, cases)
        return []

    def _undecided(
        self, masks: Sequence[Operand], values: Sequence[int]
    ) -> tuple[list[Operand], list[int]]:
        """The conditions that do not hold for all rows or none, and the values still possible."""
        open_masks, cases = [], []
        for mask, value in zip(masks, values, strict=False):
            if mask is True:
                return open_masks, [*cases, value]
            if mask is not False:
                open_masks.append(mask)
                cases.append(value)
        return open_masks, [*cases, values[-1]]

    def _is_at_hand(self, number: int) -> bool:
        """Whether a value takes no steps that another part of the program does not take anyway."""
        return self.graph.nodes[number].kind in ("number", "real", "column") or self.offers(number)

    def _where(self, masks: list[Operand], values: list[Operand]) -> Operand:
        result = values[-1]
        for mask, value in zip(reversed(masks), reversed(values[:-1]), strict=True):
            result = self.apply("where", mask, value, result)
        return result

    def _branches(self, masks: Sequence[Operand], cases: Sequence[int]) -> Operand:
        groups: list[Tensor] | None = None
        if all(isinstance(m, Tensor) for m in masks):
            groups = first_groups([m for m in masks if isinstance(m, Tensor)])
            cases = [c for c, rows in zip(cases, groups, strict=True) if len(rows)]
            groups = [rows for rows in groups if len(rows)]
        rows_of = groups or [None] * len(cases)
        scopes = [Scope(self.graph, {}, c, self, r) for c, r in zip(cases, rows_of, strict=True)]
        programs = tuple(scope.program() for scope in scopes)

        def branches(place: Place) -> Branches:
            return Branches(
                () if groups else tuple(place(m) for m in masks),
                programs,
                tuple(tuple(place(o) for o in scope.captured) for scope in scopes),
                tuple(groups) if groups else None,
            )

        self.add(lambda place, own: _branches_step(branches(place)))
        return self.add(lambda place, own: _merge_step(branches(place), own))


def _key(operand: Operand) -> Any:
    return id(operand) if isinstance(operand, Tensor) else (type(operand), operand)


def _tensor(operand: Tensor | float | bool) -> Tensor:
    # Numbers become 0-dimensional tensors, which torch handles faster than Python numbers;
    # they take the dtype of what they meet and serve on any device.
    if isinstance(operand, Tensor):
        return operand
    dtype = torch.bool if isinstance(operand, bool) else torch.float64
    return torch.tensor(operand, dtype=dtype, device="cpu")


def _folded(function: Callable[..., Tensor], operands: Sequence[Operand]) -> Operand:
    result = function(*(_tensor(o) for o in operands if not isinstance(o, Slot)))
    if not any(isinstance(o, Tensor) for o in operands):
        number: float | bool = result.item()
        return number
    if result.dtype == torch.bool and bool((result == result[:1].all()).all()):
        return bool(result[:1].all())
    return result


def _simplified(name: str, operands: Sequence[Operand]) -> Operand | None:
    """The result, where a constant operand decides it without arithmetic."""
    left, right = operands[0], operands[-1]
    if name in ("mul", "div") and _is(right, 1.0) or name in ("add", "sub") and _is(right, 0.0):
        return left
    if name == "not":
        return not left if isinstance(left, bool) else None
    if name in ("and", "or"):
        for one, other in ((left, right), (right, left)):
            if isinstance(one, bool):
                return other if one == (name == "and") else one
    return None


def _is(operand: Operand, number: float) -> bool:
    return isinstance(operand, float) and operand == number


def _bound(function: Callable[..., Any], operands: Sequence[Any]) -> Callable[[Values], Any]:
    """``function`` of operands that are places or tensors, as a function of the values."""
    match operands:
        case [int(i)]:
            return lambda v: function(v[i])
        case [int(i), int(j)]:
            return lambda v: function(v[i], v[j])
        case [int(i), known]:
            return lambda v: function(v[i], known)
        case [known, int(i)]:
            return lambda v: function(known, v[i])
    return lambda v: function(*[v[o] if isinstance(o, int) else o for o in operands])


def _bound_slope(
    slope: Callable[..., Tensor], own: int, operands: Sequence[Any]
) -> Callable[[Tensor, Values], Tensor]:
    match operands:
        case [int(i)]:
            return lambda g, v: slope(g, v[own], v[i])
        case [int(i), int(j)]:
            return lambda g, v: slope(g, v[own], v[i], v[j])
        case [int(i), known]:
            return lambda g, v: slope(g, v[own], v[i], known)
        case [known, int(i)]:
            return lambda g, v: slope(g, v[own], known, v[i])
    return lambda g, v: slope(g, v[own], *[v[o] if isinstance(o, int) else o for o in operands])


def _primitive_step(
    primitive: Primitive, operands: Sequence[Operand], place: Place, own: int
) -> Step:
    sources = [place(o) for o in operands]
    run = _bound(primitive.forward, sources)
    trace = _bound(primitive.traced, sources) if primitive.traced else run
    slopes = tuple(
        (source, _bound_slope(slope, own, sources))
        for source, slope in zip(sources, primitive.slopes, strict=False)
        if isinstance(source, int) and slope is not None
    )
    return Step(run, run, trace, tuple(s for s in sources if isinstance(s, int)), slopes)


def _number_where_step(operands: Sequence[Operand], place: Place, own: int) -> Step:
    mask, one, other = (place(o) for o in operands)

    def run(values: Values) -> Tensor:
        # Two numbers have no dtype of their own: take that of the columns.
        return torch.where(values[mask], one, other).to(values[0].dtype)

    return Step(run, run, run, (mask,))


def _constant_step(operand: Tensor | float | bool, place: Place, own: int) -> Step:
    if isinstance(operand, bool):
        return _without_inputs(lambda v: torch.full((), operand, device=v[0].device))
    if isinstance(operand, float):
        return _without_inputs(lambda v: v[0].new_full((), operand))
    return _without_inputs(lambda v: operand)


def _fail_step(place: Place, own: int) -> Step:
    def fail(values: Values) -> NoReturn:
        raise CostError("none of the formula's cases applies to a row")

    return _without_inputs(fail)


def _without_inputs(run: Callable[[Values], Any]) -> Step:
    return Step(run, run, run, ())


def _branches_step(branches: Branches) -> Step:
    return Step(branches.run, branches.record, branches.trace, branches.reads)


def _merge_step(branches: Branches, own: int) -> Step:
    def run(values: Values) -> Tensor:
        return merged(values[own - 1])

    return Step(run, run, run, (own - 1, *branches.reads), reverse=branches.reverse)


def _emit_column(scope: Scope, node: Node, args: list[Operand]) -> Operand:
    raise AssertionError(f"column {node.data!r} is not an input")


def _emit_number(scope: Scope, node: Node, args: list[Operand]) -> Operand:
    return _float(node.data)


def _emit_known(scope: Scope, node: Node, args: list[Operand]) -> Operand:
    value: float | bool = node.data
    return value


def _emit_product(scope: Scope, node: Node, args: list[Operand]) -> Operand:
    powers = [_power(scope, a, e) for a, e in zip(args, node.data, strict=True)]
    product: Operand = 1.0
    for power in sorted(powers, key=_changes):
        product = scope.apply("mul", power, product)
    return product


def _power(scope: Scope, base: Operand, exponent: int) -> Operand:
    """The power by repeated squaring."""
    power: Operand | None = None
    while True:
        if exponent % 2:
            power = base if power is None else scope.apply("mul", power, base)
        exponent //= 2
        if not exponent:
            assert power is not None
            return power
        base = scope.apply("mul", base, base)


def _emit_sum(scope: Scope, node: Node, args: list[Operand]) -> Operand:
    constant, coefs = node.data
    total: Operand = _float(constant)
    changing = []
    for arg, coef in zip(args, coefs, strict=True):
        if isinstance(arg, Slot):
            changing.append((coef, arg))
        else:
            total = _plus(scope, total, coef, arg)
    changing.sort(key=lambda item: item[0] < 0)
    if changing and (changing[0][0] > 0 or _is(total, 0.0)):
        (coef, arg), changing = changing[0], changing[1:]
        first = scope.apply("mul", arg, _float(coef))
        changing = [(Fraction(1), total)] + changing if not _is(total, 0.0) else changing
        total = first
    for coef, arg in changing:
        total = _plus(scope, total, coef, arg)
    return total


def _plus(scope: Scope, total: Operand, coef: Fraction, arg: Operand) -> Operand:
    name = "add" if coef > 0 else "sub"
    return scope.apply(name, total, scope.apply("mul", arg, _float(abs(coef))))


def _emit_ratio(scope: Scope, node: Node, args: list[Operand]) -> Operand:
    # Divide, do not multiply by the reciprocal: floor((1/49) * 49) is 0.
    top, bottom = _split(node.data)
    over = scope.apply("mul", args[1], bottom)
    return scope.apply("div", scope.apply("mul", args[0], top), over)


def _split(coef: Fraction) -> tuple[float, float]:
    """Numerator and denominator; the second is 1 where one number says it as exactly."""
    number = _float(coef)
    exact = all(_is_exact(n) for n in (coef.numerator, coef.denominator))
    if Fraction(number) == coef or not exact:
        return number, 1.0
    return float(coef.numerator), float(coef.denominator)


def _is_exact(whole: int) -> bool:
    return whole.bit_length() < 1024 and int(float(whole)) == whole


def _float(number: Fraction) -> float:
    try:
        nearest = float(number)
    except OverflowError:
        nearest = float("inf")
    if nearest in (float("inf"), float("-inf")) or (number and not nearest):
        raise FormulaError("a number in the formula is too large or too small")
    return nearest


def _changes(operand: Operand) -> bool:
    return isinstance(operand, Slot)


def _emit_call(scope: Scope, node: Node, args: list[Operand]) -> Operand:
    return scope.apply(node.data, *args)


def _emit_lookup(scope: Scope, node: Node, args: list[Operand]) -> Operand:
    find = lookup(node.data)
    if not any(isinstance(a, Slot) for a in args):
        return _folded(find, args)
    return scope.add(partial(_primitive_step, Primitive(find), args))


def _emit_fail(scope: Scope, node: Node, args: list[Operand]) -> Operand:
    return scope.add(_fail_step)


#: Kind of node -> how its value comes from its operands; ``select`` is the scope's own.
_EMITTERS: dict[str, Callable[[Scope, Node, list[Operand]], Operand]] = {
    "column": _emit_column,
    "number": _emit_number,
    "real": _emit_known,
    "truth": _emit_known,
    "product": _emit_product,
    "sum": _emit_sum,
    "ratio": _emit_ratio,
    "call": _emit_call,
    "lookup": _emit_lookup,
    "fail": _emit_fail,
}
