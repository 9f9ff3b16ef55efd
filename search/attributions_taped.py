"""Losses with units zeroed from the operators that depend on them alone, several masks at once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from hwcost.search.attributions_data import Batch, Losses, tile
from hwcost.search.attributions_local import Local, find_local, parts_of
from hwcost.search.attributions_masked import Ordered, Site, Start, masks
from hwcost.search.attributions_state import seeing
from hwcost.search.attributions_tape import (
    MARK,
    Capture,
    Node,
    Recorder,
    Step,
    Unlike,
    affected,
    run_steps,
)

#: How many numbers an operator's result has, at most, where several masks run at once.
_NUMBERS = 1 << 19

#: How many numbers an operator computes in the time that it takes to start one.
_START = 2000


@dataclass(frozen=True, eq=False)
class Plan:
    """What of a model's run depends on a module's output.

    Attributes:
        nodes: all operators of the run.
        kept: which of them depend on it and matter.
        made: numbers of the tensors that those make.
        outputs: number of each tensor that the model returned.
        local: how far units stay apart.
        largest: for one sample, how many numbers the largest result has after that.
        total: for one sample, how many numbers all operators of the run return.
    """

    nodes: Sequence[Node]
    kept: Sequence[bool]
    made: frozenset[int]
    outputs: Sequence[int]
    local: Local
    largest: float
    total: float


def make_plan(site: Site, batch: Batch) -> Plan:
    """Return what depends on the output of a site's module.

    Raises:
        Unlike: the operators cannot be run again by themselves.
    """
    recorder = Recorder()
    with seeing([(site.module, lambda call, output: recorder.mark(output))]), recorder:
        output = site.model(*batch.args, **batch.kwargs)
    leaves = [t for t in tree_leaves(output) if isinstance(t, Tensor)]
    kept = affected(recorder.nodes, leaves)
    marks = [n for n, k in zip(recorder.nodes, kept, strict=True) if k and n.func == MARK]
    if not marks:
        raise Unlike("the output does not depend on the module")
    used = [n for n, k in zip(recorder.nodes, kept, strict=True) if k]
    made = frozenset(n for node in used for n in node.outputs)
    if marks[0].inputs[0][1] in made:
        raise Unlike("what the module computes is overwritten")
    local = find_local(recorder.nodes, kept, recorder.tensors, site.dim)
    tail = [n for i, n in enumerate(recorder.nodes) if kept[i] and i not in local.nodes]
    sizes = [recorder.tensors[n].numel() for node in tail for n in node.outputs]
    outputs = [recorder.number(t) for t in leaves]
    every = sum(recorder.tensors[n].numel() for node in recorder.nodes for n in node.outputs)
    largest, total = max(sizes, default=0) / batch.size, every / batch.size
    return Plan(recorder.nodes, kept, made, outputs, local, largest, total)


@dataclass(frozen=True, eq=False)
class Tape:
    """What is kept of a batch.

    Attributes:
        tail: what runs for every mask, of so many masks at once.
        output: what the model returned for that many.
        width: how many masks at once.
        on: values where units stay apart, by number; off: the same with all units zeroed.
        mixed: index of an operator that mixes units -> its result, and the parts of each unit.
    """

    tail: Sequence[Step]
    output: Any
    width: int
    on: dict[int, Tensor]
    off: dict[int, Tensor]
    mixed: dict[int, tuple[Tensor, Tensor]]
    _rooms: dict[int, Tensor] = field(default_factory=dict)
    _lasts: dict[int, Tensor] = field(default_factory=dict)

    def room(self, number: int, one: Tensor) -> Tensor:
        """Return memory for so many tensors like one; always the same, so that it stays mapped."""
        if number not in self._rooms:
            self._rooms[number] = one.new_empty(self.width, *one.shape)
        return self._rooms[number]

    def last(self, number: int, one: Tensor) -> Tensor:
        """Return memory for one such tensor."""
        if number not in self._lasts:
            self._lasts[number] = torch.empty_like(one)
        return self._lasts[number]


class Taped:
    """Runs what depends on the units, for several masks at once."""

    def __init__(self, site: Site, losses: Losses, plan: Plan, count: int, width: int) -> None:
        """Keep the plan, of so many permutations, and how many masks may run at once."""
        self.site = site
        self._losses = losses
        self._plan = plan
        self._count = count
        self._width = width

    def start(self, batch: Batch) -> Start:
        """See ``Rerun``."""
        self._keep_memory()
        steps, output = self._capture(batch)
        losses = self._losses(output, batch.y, batch.size)
        on = self._apart(steps, lambda z: z.clone())
        off = self._apart(steps, torch.zeros_like)
        first = next(s for s in steps if s.func == MARK)
        active = self.site.active(first.args[0])
        if sum(s.func == MARK for s in steps) > 1:
            active = torch.ones_like(active)
        width = self._fitting(batch.size, self._count * int(active.sum()))
        mixed = self._mixed(steps, on, off)
        tail, times, output = self._tail(batch, steps, output, width, on)
        return Start(losses, active, Tape(tail, output, times, on, off, mixed))

    def losses(self, batch: Batch, start: Start, order: Ordered) -> Tensor:
        """See ``Rerun``."""
        tape: Tape = start.state
        table = masks(order, len(start.active), start.active.device)
        carried: dict[int, Tensor] = {}
        found: list[Tensor] = []
        outputs: list[Any] = []
        for at in range(0, len(table), tape.width):
            rows = table[at : at + tape.width]
            count = len(rows)
            if count < tape.width:
                rows = torch.cat([rows, rows[-1:].expand(tape.width - count, -1)])
            values = self._composed(tape, rows)
            for index, (base, parts) in tape.mixed.items():
                (number,) = self._plan.nodes[index].outputs
                before = carried.get(index, base)
                units, starts = order.units[at : at + count], order.starts[at : at + count]
                summed = tape.room(number, base)
                _sum(summed, base, before, parts, units, starts)
                carried[index] = tape.last(number, base).copy_(summed[count - 1])
                values[number] = summed.flatten(0, 1)
            outputs.append(self._run(tape, values, rows, batch.size))
            numel = sum(t.numel() for t in tree_leaves(outputs) if isinstance(t, Tensor))
            if numel > _NUMBERS or at + tape.width >= len(table):
                found.append(self._lost(outputs, batch))
                outputs = []
        return torch.cat(found)[: len(table)]

    def _lost(self, outputs: Sequence[Any], batch: Batch) -> Tensor:
        """Return the losses of what the model returned for masks, shape ``(masks, samples)``."""
        sizes = [next(t for t in tree_leaves(o) if isinstance(t, Tensor)).shape[0] for o in outputs]
        whole = outputs[0] if len(outputs) == 1 else tree_map(_joined, *outputs)
        y = tile(batch.y, sum(sizes) // batch.size, batch.size)
        return self._losses(whole, y, sum(sizes)).view(-1, batch.size)

    @staticmethod
    def _keep_memory() -> None:
        # glibc returns freed memory to the system beyond twice the largest block, up to 32 MiB,
        # that was ever freed; then each mask would fault all its pages in again.
        torch.empty(31 << 20, dtype=torch.uint8)

    def _capture(self, batch: Batch) -> tuple[list[Step], Any]:
        plan = self._plan
        capture = Capture(plan.nodes, plan.kept, plan.made)
        with seeing([(self.site.module, lambda call, z: capture.mark(z))]), capture:
            output = self.site.model(*batch.args, **batch.kwargs)
        return capture.finish(plan.outputs), output

    def _fitting(self, size: int, steps: int) -> int:
        """Return how many masks to run at once.

        More of them save on starting operators, but the model runs once on so many copies of the
        samples. In that, an operator's start costs as much as ``_START`` numbers.
        """
        plan = self._plan
        most = int(_NUMBERS // max(1, plan.largest * size))
        tail = sum(plan.kept) - len(plan.local.nodes) - len(plan.local.mixing)
        whole = len(plan.nodes) + plan.total * size / _START
        best = round(math.sqrt(steps * (tail + 10) / whole))
        return max(1, min(most, self._width, best))

    def _apart(self, steps: Sequence[Step], mark: Any) -> dict[int, Tensor]:
        """Return values where units stay apart."""
        plan, values = self._plan, dict[int, Tensor]()
        first = next(s for s in steps if s.func == MARK)
        values[first.outputs[0]] = mark(first.args[0])
        for step in steps:
            if step.index in plan.local.nodes:
                step.run(values)
        later = (step for step in steps if step.index not in plan.local.nodes)
        read = {n for step in later for _, n in step.inputs} | set(plan.outputs)
        return {n: v for n, v in values.items() if n in plan.local.dims and n in read}

    def _mixed(
        self, steps: Sequence[Step], on: dict[int, Tensor], off: dict[int, Tensor]
    ) -> dict[int, tuple[Tensor, Tensor]]:
        found = {}
        for step in steps:
            source = self._plan.local.mixing.get(step.index)
            if source is not None:
                values = {source: on[source]}
                step.run(values)
                parts = parts_of(step, off[source] - on[source])
                found[step.index] = values[step.outputs[0]], parts
        return found

    def _tail(
        self, batch: Batch, steps: list[Step], output: Any, width: int, on: dict[int, Tensor]
    ) -> tuple[list[Step], int, Any]:
        """Return what runs for every mask, how many masks at once, and the model's output."""
        before = steps
        if width > 1:
            try:
                steps, output = self._capture(batch.tiled(width))
            except (RuntimeError, Unlike) as error:
                raise Unlike("the model does not run on more samples") from error
        local = self._plan.local
        first = next(s for s in steps if s.func == MARK)
        skipped = {first.index, *local.nodes, *local.mixing}
        for small, large in zip(before, steps, strict=True):
            for number in small.shapes:
                old, new = small.shapes[number], large.shapes[number]
                if number in local.dims and (old[0] * width, *old[1:]) != tuple(new):
                    raise Unlike("samples do not lie along the first dimension")
        return [s for s in steps if s.index not in skipped], width, output

    def _composed(self, tape: Tape, rows: Tensor) -> dict[int, Tensor]:
        """Return values where units stay apart, for each mask."""
        read = {n for step in tape.tail for _, n in step.inputs} | set(self._plan.outputs)
        values = {}
        for number, on in tape.on.items():
            if number in read:
                dim = self._plan.local.dims[number]
                shape = [len(rows)] + [1] * on.dim()
                shape[dim + 1] = -1
                both = tape.room(number, on)
                torch.where(rows.view(shape), tape.off[number], on, out=both)
                values[number] = both.flatten(0, 1)
        return values

    def _run(self, tape: Tape, values: dict[int, Tensor], rows: Tensor, size: int) -> Any:
        def mark(output: Tensor) -> Tensor:
            if len(rows) == 1:
                return self.site.zeroed(output, rows[0])
            shape = [len(rows), size] + [1] * (output.dim() - 1)
            shape[self.site.dim % output.dim() + 1] = -1
            split = output.view(len(rows), size, *output.shape[1:])
            shape[1] = 1
            return split.masked_fill(rows.view(shape), 0).flatten(0, 1)

        run_steps(tape.tail, values, mark)
        numbers = iter(self._plan.outputs)

        def now(leaf: Any) -> Any:
            return values.get(next(numbers), leaf).clone() if isinstance(leaf, Tensor) else leaf

        return tree_map(now, tape.output)


def _joined(first: Any, *others: Any) -> Any:
    return torch.cat([first, *others]) if isinstance(first, Tensor) else first


def _sum(
    result: Tensor,
    base: Tensor,
    before: Tensor,
    parts: Tensor,
    units: Sequence[int],
    starts: Sequence[bool],
) -> None:
    """Write the result of a linear operator after each step, ``(width, *result)``."""
    for row, (unit, start) in enumerate(zip(units, starts, strict=True)):
        torch.add(base if start else before, parts[unit], out=result[row])
        before = result[row]
    result[len(units) :] = before
