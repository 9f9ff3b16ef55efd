"""The sum of all rows' costs as one autograd node.

A training loop asks for one scalar in every step. Gathering, pricing and summing as separate
nodes would spend most of the time between them.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hwcost.evaluate import Part
from hwcost.program import Values, is_plain


def can_sum(parts: Sequence[Part], columns: Sequence[Tensor]) -> bool:
    """Whether ``summed`` serves: a plain backward pass is wanted and no size is 0."""
    wanted = torch.is_grad_enabled() and any(c.requires_grad for c in columns)
    reading = bool(parts) and all(part.formula and part.formula.names for part in parts)
    return reading and wanted and is_plain() and not any(_has_zero(c) for c in columns)


def summed(parts: Sequence[Part], names: Sequence[str], columns: Sequence[Tensor]) -> Tensor:
    """Return the sum over the rows of all parts, each its ``weight`` times, a scalar.

    Args:
        names: of the columns.
        columns: float64, shape ``(rows,)``.
    """
    places = [[names.index(n) for n in part.formula.names] for part in parts if part.formula]
    return _Sum.apply(parts, places, *columns)  # type: ignore[no-any-return,no-untyped-call]


def _has_zero(column: Tensor) -> bool:
    return int(torch.count_nonzero(column)) != len(column)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, parts: Sequence[Part], places: list[list[int]], *columns: Tensor
    ) -> Tensor:
        ctx.parts, ctx.places = parts, places
        ctx.save_for_backward(*columns)
        ctx.recorded = [
            _record(part, place, columns) for part, place in zip(parts, places, strict=True)
        ]
        sums = [_weighted(p, v) for p, v in zip(parts, ctx.recorded, strict=True)]
        return sums[0] if len(sums) == 1 else torch.stack(sums).sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        columns, needed = ctx.saved_tensors, ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():
            return (None, None, *_second_order(ctx.parts, ctx.places, columns, needed, grads[0]))
        slopes: list[Tensor | None] = [None] * len(columns)
        for part, place, values in zip(ctx.parts, ctx.places, ctx.recorded, strict=True):
            upstream = (
                grads[0].expand(part.count) if part.weight is None else grads[0] * part.weight
            )
            wanted = tuple(needed[i] for i in place)
            found = part.formula.program.slopes(values, upstream, wanted)
            for i, slope in zip(place, found, strict=True):
                if slope is not None:
                    slopes[i] = _added(slopes[i], slope, part, columns[i])
        filled = [
            torch.zeros_like(c) if need and s is None else s
            for s, c, need in zip(slopes, columns, needed, strict=True)
        ]
        return (None, None, *filled)


def _gathered(part: Part, place: Sequence[int], columns: Sequence[Tensor]) -> list[Tensor]:
    if part.rows is None:
        return [columns[i].clone() for i in place]
    return [columns[i].index_select(0, part.rows) for i in place]


def _record(part: Part, place: Sequence[int], columns: Sequence[Tensor]) -> Values:
    assert part.formula is not None
    inputs = _gathered(part, place, columns)
    return part.formula.program.record(inputs[0], inputs)


def _weighted(part: Part, values: Values) -> Tensor:
    assert part.formula is not None
    result: Tensor = values[part.formula.program.output]
    return (result if part.weight is None else result * part.weight).sum()


def _added(before: Tensor | None, slope: Tensor, part: Part, column: Tensor) -> Tensor:
    """``before`` plus the slope of a part's rows, in the place of these rows."""
    if part.rows is None:
        return slope if before is None else before + slope
    total = torch.zeros_like(column) if before is None else before
    return total.index_add_(0, part.rows, slope.expand(part.count))


def _second_order(
    parts: Sequence[Part],
    places: Sequence[Sequence[int]],
    columns: Sequence[Tensor],
    needed: Sequence[bool],
    upstream: Tensor,
) -> list[Tensor | None]:
    """Slopes that can be differentiated again."""
    total = upstream.new_zeros(())
    for part, place in zip(parts, places, strict=True):
        assert part.formula is not None
        inputs = _gathered(part, place, columns)
        values = part.formula(dict(zip(part.formula.names, inputs, strict=True)))
        total = total + (values if part.weight is None else values * part.weight).sum()
    targets = [c for c, need in zip(columns, needed, strict=True) if need]
    if not total.requires_grad:
        return [torch.zeros_like(c) if n else None for c, n in zip(columns, needed, strict=True)]
    found = iter(
        torch.autograd.grad(
            total, targets, upstream, create_graph=True, allow_unused=True, materialize_grads=True
        )
    )
    return [next(found) if need else None for need in needed]
