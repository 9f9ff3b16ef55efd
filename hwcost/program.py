"""Straight-line programs on tensors: values forward, slopes backward.

One autograd node runs a whole program and its reverse. A node for each operation would be
several times slower on the few rows of a network; that path (``trace``) serves second
derivatives, forward mode and ``torch.func``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

#: What a program has computed so far: a tensor that shows dtype and device, the inputs, then
#: one entry for each step.
Values = list[Any]

#: (upstream slope, values of the program) -> slope to an operand.
BoundSlope = Callable[[Tensor, Values], Tensor]

#: (values of the program, slopes so far) -> None; adds to the slopes.
Reverse = Callable[[Values, list[Tensor | None]], None]


@dataclass(frozen=True, eq=False)
class Step:
    """One operation.

    Attributes:
        run: values so far -> the next one.
        record: the same, for a later ``slopes``; differs where ``run`` frees something.
        trace: the same, differentiable by torch.
        reads: places that it reads.
        slopes: (place read, the slope to it; None where that is the upstream one).
        reverse: instead of ``slopes``: places that need slopes -> what adds to them.
    """

    run: Callable[[Values], Any]
    record: Callable[[Values], Any]
    trace: Callable[[Values], Any]
    reads: tuple[int, ...]
    slopes: tuple[tuple[int, BoundSlope | None], ...] = ()
    reverse: Callable[[int, frozenset[int]], Reverse] | None = None


@dataclass(frozen=True, eq=False)
class Program:
    """Steps and where the result stands.

    Attributes:
        inputs: how many there are.
        steps: in order.
        output: place of the result.
    """

    inputs: int
    steps: tuple[Step, ...]
    output: int
    _plans: dict[tuple[bool, ...], list[Any]] = field(default_factory=dict)
    _freed: list[tuple[Callable[[Values], Any], tuple[int, ...]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        first = 1 + self.inputs
        last = {place: k for k, step in enumerate(self.steps) for place in step.reads}
        for k, step in enumerate(self.steps):
            free = {p for p in step.reads if last[p] == k and p not in (0, self.output)}
            self._freed.append((step.run, tuple(free)))
        assert self.output < first + len(self.steps)

    def run(self, like: Tensor, inputs: Sequence[Tensor]) -> Any:
        """Return the result; everything else is freed as soon as it is not needed."""
        values: Values = [like, *inputs]
        for step, free in self._freed:
            values.append(step(values))
            for place in free:
                values[place] = None
        return values[self.output]

    def record(self, like: Tensor, inputs: Sequence[Tensor]) -> Values:
        """Return all values, for ``slopes``."""
        values: Values = [like, *inputs]
        for step in self.steps:
            values.append(step.record(values))
        return values

    def trace(self, like: Tensor, inputs: Sequence[Tensor]) -> Any:
        """Return the result, computed by operations that torch differentiates."""
        values: Values = [like, *inputs]
        for step in self.steps:
            values.append(step.trace(values))
        return values[self.output]

    def slopes(self, values: Values, upstream: Tensor, needed: tuple[bool, ...]) -> list[Any]:
        """Return the slope to each input that needs it, None where it does not reach one."""
        slopes: list[Tensor | None] = [None] * len(values)
        slopes[self.output] = upstream
        plan = self._plans.get(needed)
        if plan is None:
            plan = self._plans[needed] = self._plan(needed)
        for place, target, rule in plan:
            above = slopes[place]
            if above is None:
                continue
            if target is None:
                rule(values, slopes)
                continue
            slope = above if rule is None else rule(above, values)
            before = slopes[target]
            slopes[target] = slope if before is None else before + slope
        return slopes[1 : 1 + self.inputs]

    def _plan(self, needed: tuple[bool, ...]) -> list[Any]:
        """(place, place read, rule) of the steps between the result and the needed inputs."""
        active = {i for i, need in enumerate(needed, start=1) if need}
        first = 1 + self.inputs
        for place, step in enumerate(self.steps, start=first):
            reads = step.reads if step.reverse else [target for target, _ in step.slopes]
            if not active.isdisjoint(reads):
                active.add(place)
        plan: list[Any] = []
        reached = {self.output}
        for place in range(first + len(self.steps) - 1, first - 1, -1):
            step = self.steps[place - first]
            if place not in active or place not in reached:
                continue
            if step.reverse:
                plan.append((place, None, step.reverse(place, frozenset(active))))
                reached.update(step.reads)
            for target, rule in step.slopes:
                if target in active:
                    plan.append((place, target, rule))
                    reached.add(target)
        return plan


def add_slope(slopes: list[Tensor | None], place: int, slope: Tensor) -> None:
    """Add to the slope of a place."""
    before = slopes[place]
    slopes[place] = slope if before is None else before + slope


class _Evaluate(torch.autograd.Function):
    """A program as one autograd node."""

    @staticmethod
    def forward(ctx: Any, program: Program, *inputs: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        values = program.record(inputs[0], inputs)
        ctx.program = program
        ctx.values = values[1 + len(inputs) :]
        ctx.save_for_backward(*inputs)
        # Not the recorded tensor itself, which would hold its own history: a leak.
        result: Tensor = values[program.output].detach()
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        upstream = grads[0]
        needed = ctx.needs_input_grad[1:]
        if upstream is None:
            return (None,) * (1 + len(needed))
        inputs = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (None, *_second_order(ctx.program, inputs, upstream, needed))
        values = [inputs[0], *inputs, *ctx.values]
        slopes = ctx.program.slopes(values, upstream, needed)
        for i, (slope, need) in enumerate(zip(slopes, needed, strict=True)):
            if need and slope is None:
                slopes[i] = torch.zeros_like(inputs[i])
        return (None, *slopes)


def _second_order(
    program: Program, inputs: Sequence[Tensor], upstream: Tensor, needed: Sequence[bool]
) -> list[Tensor | None]:
    return slopes_again(program.trace(inputs[0], inputs), inputs, upstream, needed)


def slopes_again(
    result: Tensor, inputs: Sequence[Tensor], upstream: Tensor, needed: Sequence[bool]
) -> list[Tensor | None]:
    """Return slopes that can be differentiated again, for the inputs that need one.

    Args:
        result: computed from the inputs by operations that torch differentiates.
    """
    targets = [x for x, need in zip(inputs, needed, strict=True) if need]
    if not result.requires_grad:
        return [torch.zeros_like(x) if n else None for x, n in zip(inputs, needed, strict=True)]
    found = iter(
        torch.autograd.grad(
            result, targets, upstream, create_graph=True, allow_unused=True, materialize_grads=True
        )
    )
    return [next(found) if need else None for need in needed]


def evaluate(program: Program, inputs: Sequence[Tensor]) -> Tensor:
    """Return the result for inputs of one shape as one node of torch's graph."""
    return _Evaluate.apply(program, *inputs)  # type: ignore[no-any-return, no-untyped-call]


def is_plain() -> bool:
    """Whether reverse mode on tensors is all that is asked for: no torch.func, no dual numbers."""
    return not (
        torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
        or torch.compiler.is_compiling()
    )
