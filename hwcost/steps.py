"""The steps of a program: operations bound to the places where their operands stand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from hwcost.branches import Branches, merged
from hwcost.errors import CostError
from hwcost.primitives import Primitive, Slope, unchanged
from hwcost.program import BoundSlope, Step, Values


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


def tensor(operand: Operand) -> Tensor:
    """Return a known operand as a tensor.

    Numbers become 0-dimensional ones, which torch handles faster than Python's numbers; they
    take the dtype of what they meet, and serve on any device.
    """
    if isinstance(operand, Tensor):
        return operand
    assert not isinstance(operand, Slot)
    dtype = torch.bool if isinstance(operand, bool) else torch.float64
    return torch.tensor(operand, dtype=dtype, device="cpu")


def folded(function: Callable[..., Tensor], operands: Sequence[Operand]) -> Operand:
    """Return the function of known operands; a mask that is the same for all rows as a bool."""
    result = function(*map(tensor, operands))
    if not any(isinstance(o, Tensor) for o in operands):
        number: float | bool = result.item()
        return number
    if result.dtype == torch.bool and bool((result == result[:1]).all()):
        return bool(result[:1].all())
    return result


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


def _bound_slope(slope: Slope, own: int, operands: Sequence[Any]) -> BoundSlope | None:
    """The slope to an operand as a function of what comes from above and the values."""
    if slope is unchanged:
        return None
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


def primitive_step(
    primitive: Primitive, operands: Sequence[Operand], place: Place, own: int
) -> Step:
    """Return the step that applies a primitive."""
    sources = [place(o) for o in operands]
    run = _bound(primitive.forward, sources)
    trace = _bound(primitive.traced, sources) if primitive.traced else run
    slopes = tuple(
        (source, _bound_slope(slope, own, sources))
        for source, slope in zip(sources, primitive.slopes, strict=False)
        if isinstance(source, int) and slope is not None
    )
    return Step(run, run, trace, tuple(s for s in sources if isinstance(s, int)), slopes)


def number_where_step(operands: Sequence[Operand], place: Place, own: int) -> Step:
    """Return the step that picks one of two numbers by a mask."""
    mask, one, other = (place(o) for o in operands)

    def run(values: Values) -> Tensor:
        # Two numbers have no dtype of their own: take that of the columns.
        return torch.where(values[mask], one, other).to(values[0].dtype)

    return Step(run, run, run, (mask,))


def constant_step(operand: Operand, repeated: bool, place: Place, own: int) -> Step:
    """Return the step whose value is known already, ``repeated`` on all rows of the inputs."""

    def run(values: Values) -> Tensor:
        known: Tensor
        if isinstance(operand, float):
            known = values[0].new_full((), operand)
        else:
            known = tensor(operand).to(values[0].device)
        return known.expand_as(values[1]) if repeated else known

    return _without_reads(run)


def fail_step(place: Place, own: int) -> Step:
    """Return the step for rows that no case is for."""

    def fail(values: Values) -> NoReturn:
        raise CostError("none of the formula's cases applies to a row")

    return _without_reads(fail)


def _without_reads(run: Callable[[Values], Any]) -> Step:
    return Step(run, run, run, ())


def branches_step(branches: Branches) -> Step:
    """Return the step that computes each case on its rows."""
    return Step(branches.run, branches.record, branches.trace, branches.reads)


def merge_step(branches: Branches, own: int) -> Step:
    """Return the step after ``branches_step``, which puts the rows in order again."""

    def run(values: Values) -> Tensor:
        return merged(values[own - 1])

    return Step(run, run, run, (own - 1, *branches.reads), reverse=branches.reverse)
