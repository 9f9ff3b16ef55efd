"""Graph -> program: what is known is computed now, the rest becomes steps.

Everything that depends on numbers and given columns only is folded while the program is built.
A case of a ``select`` becomes a program of its own, which reads what its surroundings have
computed already.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hwcost.arithmetic import nearest, product, ratio, simplified, total
from hwcost.branches import Branches, first_groups
from hwcost.limits import Budget, adds_little
from hwcost.lookup import lookup
from hwcost.primitives import PRIMITIVES, Primitive
from hwcost.program import Program
from hwcost.quotient import Graph, Node
from hwcost.steps import (
    Build,
    Operand,
    Place,
    Slot,
    branches_step,
    constant_step,
    fail_step,
    folded,
    merge_step,
    number_where_step,
    primitive_step,
    tensor,
)

#: Kinds of node that are cheaper to write again than to hand over.
_CONSTANTS = ("number", "real", "truth")


class Scope:
    """One program in the making: the formula itself, or a case of a ``select``.

    Args:
        graph: the operations.
        known: nodes whose values stand already.
        root: the node to compute.
        outer: the scope whose rows this one takes some of.
        rows: which rows these are, when that is known now.
        untaken: instead, a mask of the rows that are not its own: their values are computed
            with the others, as steps of ``outer``, and dropped; so are their slopes.
    """

    def __init__(
        self,
        graph: Graph,
        known: Mapping[int, Operand],
        root: int,
        outer: "Scope | None" = None,
        rows: Tensor | None = None,
        untaken: Operand | None = None,
    ) -> None:
        self.graph, self.root, self.outer, self.rows = graph, root, outer, rows
        self.untaken = untaken
        self.known: dict[int, Operand] = dict(known)
        self.dtype: torch.dtype = outer.dtype if outer else _dtype(self.known.values())
        self.captured: list[Operand] = []
        self.budget: Budget = outer.budget if outer else Budget()
        self._demanded = graph.demanded(root)
        self._steps: list[tuple[Build, Sequence[Operand]]] = []
        self._memo: dict[Any, Operand] = {}
        self._scaled: dict[Slot, tuple[Slot, Operand]] = {}
        if outer is not None and untaken is not None:
            self._steps, self._memo, self._scaled = outer._steps, outer._memo, outer._scaled

    def program(self, inputs: int | None = None) -> Program:
        """Return the program for the root, with the given inputs or else the captured ones."""
        output = self.emit(self.root)
        if not isinstance(output, Slot):
            output = self._add(partial(constant_step, output, bool(inputs)), ())
        count = len(self.captured) if inputs is None else inputs
        live = self._live(output)
        places = {Slot(index): 1 + count + k for k, index in enumerate(live)}

        def place(operand: Operand) -> int | Tensor:
            if isinstance(operand, Slot):
                return places[operand] if operand.index >= 0 else -operand.index
            return tensor(operand)

        steps = [self._steps[index][0](place, 1 + count + k) for k, index in enumerate(live)]
        last = place(output)
        assert isinstance(last, int)
        return Program(count, tuple(steps), last)

    def _live(self, output: Slot) -> list[int]:
        """The steps that the output depends on, in order."""
        live = {output}
        for index in reversed(range(len(self._steps))):
            if Slot(index) in live:
                live.update(o for o in self._steps[index][1] if isinstance(o, Slot))
        return sorted(slot.index for slot in live if slot.index >= 0)

    def emit(self, root: int) -> Operand:
        """Return the value of a node, after the steps that it needs."""
        pending = [root]
        while pending:
            waiting = [] if pending[-1] in self.known else self._advance(pending[-1])
            if waiting:
                pending.extend(reversed(waiting))
            else:
                pending.pop()
        return self.known[root]

    def offers(self, number: int) -> bool:
        """Whether the node has a value on all of the scope's rows, or will have in any case."""
        if number in self.known or number in self._demanded:
            return self.graph.nodes[number].kind not in _CONSTANTS
        return self.outer is not None and self.outer.offers(number)

    def _advance(self, number: int) -> Sequence[int]:
        """Set the node's value, or return the nodes to do first."""
        if self.outer and self.outer.offers(number):
            self.known[number] = self._capture(self.outer.emit(number))
            return ()
        node = self.graph.nodes[number]
        if node.kind == "select":
            return self._advance_select(number, node)
        waiting = [a for a in node.args if a not in self.known]
        if not waiting:
            self.known[number] = self._computed(node, [self.known[a] for a in node.args])
        return waiting

    def _computed(self, node: Node, args: list[Operand]) -> Operand:
        match node.kind:
            case "number":
                return nearest(node.data)
            case "real" | "truth":
                value: float | bool = node.data
                return value
            case "product":
                return product(self._apply, node.data, args)
            case "sum":
                constant, coefs = node.data
                return total(self._apply, constant, coefs, args)
            case "ratio":
                above, below = args
                return ratio(self._apply, node.data, above, below)
            case "call":
                return self._apply(node.data, *args)
            case "lookup":
                return self._lookup(node, args)
            case "fail":
                return self._add(fail_step, ())
        raise AssertionError(f"{node.kind} {node.data!r} has no value")

    def _apply(self, name: str, *operands: Operand) -> Operand:
        """The value of a primitive: known if its operands are, else that of a step."""
        decided = simplified(name, operands)
        if decided is not None:
            return decided
        numbers = name == "where" and not any(isinstance(o, Slot | Tensor) for o in operands[1:])
        if not any(isinstance(o, Slot) for o in operands):
            value = folded(PRIMITIVES[name].forward, operands)
            return value.to(self.dtype) if numbers and isinstance(value, Tensor) else value
        key = (name, *map(_key, operands))
        if key not in self._memo:
            if name == "mul" and (merged := self._rescaled(*operands)) is not None:
                self._memo[key] = merged
            else:
                step = number_where_step if numbers else partial(primitive_step, PRIMITIVES[name])
                self._memo[key] = self._add(partial(step, operands), operands)
        return self._memo[key]

    def _rescaled(self, left: Operand, right: Operand) -> Operand | None:
        """A product of known factors and one that is not, with the known ones joined."""
        slot, factor = (left, right) if isinstance(left, Slot) else (right, left)
        if not isinstance(slot, Slot) or isinstance(factor, Slot):
            return None
        if slot not in self._scaled:
            self._scaled[Slot(len(self._steps))] = (slot, factor)
            return None
        base, before = self._scaled[slot]
        return self._apply("mul", base, self._apply("mul", before, factor))

    def _lookup(self, node: Node, args: list[Operand]) -> Operand:
        find = lookup(node.data)
        if not any(isinstance(a, Slot) for a in args):
            return folded(find, args)
        return self._add(partial(primitive_step, Primitive(find), args), args)

    def _add(self, build: Build, operands: Sequence[Operand]) -> Slot:
        """The value of a new step."""
        self.budget.steps += 1
        self.budget.check()
        self._steps.append((build, operands))
        return Slot(len(self._steps) - 1)

    def _capture(self, operand: Operand) -> Operand:
        """The outer scope's value on this scope's rows."""
        if self.untaken is not None:
            known = not isinstance(operand, Slot)
            return operand if known else self._apply("gate", operand, self.untaken)
        if isinstance(operand, Tensor):
            if len(operand) == 1:
                return operand
            if self.rows is not None:
                return operand.index_select(0, self.rows)
        elif not isinstance(operand, Slot):
            return operand
        key = ("captured", _key(operand))
        if key not in self._memo:
            self.captured.append(operand)
            self._memo[key] = Slot(-len(self.captured))
        return self._memo[key]

    def _advance_select(self, number: int, node: Node) -> Sequence[int]:
        conditions, values = node.args[: node.data], node.args[node.data :]
        waiting = [c for c in conditions if c not in self.known]
        if waiting:
            return waiting
        masks, cases = _undecided([self.known[c] for c in conditions], values)
        waiting = [c for c in cases if c not in self.known]
        if not masks:
            self._demanded |= self.graph.demanded(cases[0])
        elif not all(self._is_at_hand(c) for c in cases):
            few = adds_little(self.graph, cases, self._is_at_hand)
            self.known[number] = (self._everywhere if few else self._branches)(masks, cases)
            return ()
        if not waiting:
            self.known[number] = self._where(masks, [self.known[c] for c in cases])
        return waiting

    def _is_at_hand(self, number: int) -> bool:
        """Whether a value takes no steps that other parts of the program do not take anyway."""
        return self.graph.nodes[number].kind in _CONSTANTS or self.offers(number)

    def _where(self, masks: Sequence[Operand], values: Sequence[Operand]) -> Operand:
        result = values[-1]
        for mask, value in reversed(list(zip(masks, values, strict=False))):
            result = self._apply("where", mask, value, result)
        return result

    def _everywhere(self, masks: Sequence[Operand], cases: Sequence[int]) -> Operand:
        """Cases computed on all rows, of which each row picks one."""
        values: list[Operand] = []
        decided: Operand = False
        for mask, case in zip((*masks, True), cases, strict=True):
            untaken = self._apply("or", self._apply("not", mask), decided)
            decided = self._apply("or", mask, decided)
            scope = Scope(self.graph, {}, case, self, untaken=untaken)
            values.append(0.0 if untaken is True else scope.emit(case))
        return self._where(masks, values)

    def _branches(self, masks: Sequence[Operand], cases: Sequence[int]) -> Operand:
        self.budget.cases += len(cases)
        self.budget.check()
        groups: list[Tensor] = []
        if all(isinstance(m, Tensor) for m in masks):
            found = first_groups([m for m in masks if isinstance(m, Tensor)])
            cases = [c for c, rows in zip(cases, found, strict=True) if len(rows)]
            groups = [rows for rows in found if len(rows)]
        scopes = [
            Scope(self.graph, {}, case, self, groups[i] if groups else None)
            for i, case in enumerate(cases)
        ]
        programs = tuple(scope.program() for scope in scopes)

        def branches(place: Place) -> Branches:
            conditions = () if groups else tuple(map(place, masks))
            sources = tuple(tuple(map(place, scope.captured)) for scope in scopes)
            return Branches(conditions, programs, sources, tuple(groups))

        reads = [*masks, *(operand for scope in scopes for operand in scope.captured)]
        parts = self._add(lambda place, own: branches_step(branches(place)), reads)
        return self._add(lambda place, own: merge_step(branches(place), own), [parts, *reads])


def _undecided(masks: Sequence[Operand], values: Sequence[int]) -> tuple[list[Operand], list[int]]:
    """The conditions that do not hold for all rows or none, and the values still possible."""
    still_open: list[Operand] = []
    cases: list[int] = []
    for mask, value in zip(masks, values, strict=False):
        if mask is True:
            return still_open, [*cases, value]
        if mask is not False:
            still_open.append(mask)
            cases.append(value)
    return still_open, [*cases, values[-1]]


def _dtype(operands: Iterable[Operand]) -> torch.dtype:
    dtypes = (o.dtype for o in operands if isinstance(o, Tensor))
    return next(dtypes, torch.float64)


def _key(operand: Operand) -> Any:
    return id(operand) if isinstance(operand, Tensor) else (type(operand), operand)
