"""Evaluate formulas on the rows of a table: bind what is fixed once, then only what changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hwcost.compile import Formula
from hwcost.errors import CostError, FormulaError, WorkloadError
from hwcost.extents import EXTENTS, any_below_one, floored
from hwcost.ops import BITS, KINDS
from hwcost.plan import Group
from hwcost.summed import Joint, Part
from hwcost.workload import Workload


@dataclass(frozen=True, eq=False)
class Bound:
    """All parts of a table.

    Attributes:
        parts: those whose values change with the columns.
        fixed: values that do not change, with the row of each; shapes ``(fixed rows,)``.
        fixed_sum: their sum, each ``weight`` times, a scalar.
        order: position of each table row in the parts' values, the fixed ones and a last 0
            for rows without a price; int64, shape ``(rows,)``.
        joint: ``parts`` as one function.
        share: what part of its first channel each row has by the sizes that do not change, shape
            ``(rows,)``; None where all have one.
    """

    parts: tuple[Part, ...]
    fixed: Tensor
    fixed_rows: Tensor
    fixed_sum: Tensor
    order: Tensor
    joint: Joint
    share: Tensor | None


def bind(
    workload: Workload,
    groups: Sequence[Group],
    formulas: Sequence[Formula],
    bits: Mapping[str, Tensor],
    what: str,
) -> Bound:
    """Return the formulas of ``groups`` with all filled in that ``workload`` does not change.

    Args:
        bits: resolved bits, shape ``(rows,)``.
        what: the metric, for messages.

    Raises:
        WorkloadError: a row lacks a size that its formula reads; names the layer and the size.
    """
    device = _device(workload)
    columns = {**workload.structure.traced, **bits}
    share = None
    read = {name for group in groups for name in KINDS[group.kind].extent}
    unchanged = {n: columns[n] for n in EXTENTS if n in read and n not in workload.changed}
    if any_below_one(unchanged):
        share = workload.structure.extents.share(unchanged).to(device)
        columns = floored(columns)
    parts = [
        _part(workload, group, formula, columns, what, device)
        for group, formula in zip(groups, formulas, strict=True)
    ]
    changing = tuple(part for part in parts if part.fixed is None)
    constant = [part for part in parts if part.fixed is not None]
    rows = torch.arange(len(workload))
    fixed_rows = torch.cat(
        [rows if p.rows is None else p.rows.cpu() for p in constant] + [rows[:0]]
    )
    fixed = [p.fixed for p in constant if p.fixed is not None]
    nothing = torch.zeros(0, dtype=torch.float64, device=device)
    order = torch.full((len(workload),), sum(p.count for p in parts))
    position = 0
    for part in (*changing, *constant):
        taken = slice(None) if part.rows is None else part.rows.cpu()
        order[taken] = torch.arange(position, position + part.count)
        position += part.count
    values = torch.cat([*fixed, nothing])
    fixed_sum = (values * columns["weight"][fixed_rows].to(device)).sum()
    joint = Joint(changing, len(workload), device)
    return Bound(changing, values, fixed_rows.to(device), fixed_sum, order.to(device), joint, share)


def changed_key(workload: Workload) -> tuple[Any, ...]:
    """Return what tables of one structure must have in common to share a ``Bound``."""
    changed = workload.changed
    return (*sorted(changed), *{c.device for c in changed.values()})


def row_values(bound: Bound, workload: Workload) -> Tensor:
    """Return the values in the table's order, 0 where a row has no price; shape ``(rows,)``."""
    changed = workload.changed
    if bound.share is None and not any_below_one(changed):
        return _ordered(bound, changed)
    whole = floored(changed)
    values, share = _ordered(bound, whole), _share(bound, workload)
    lost = (share.detach() == 0) & ~values.detach().isfinite()
    if bool(lost.any()):
        # The formula divides by another size that is 0: price such rows at 1, without a slope.
        whole = {n: torch.where(lost, 1, column) for n, column in whole.items()}
        values = torch.where(lost, 0, _ordered(bound, whole))
    return values * share


def _share(bound: Bound, workload: Workload) -> Tensor:
    """What part of its first channel each row has, shape ``(rows,)``."""
    sizes = {n: workload.changed[n] for n in EXTENTS if n in workload.changed}
    if not sizes:
        assert bound.share is not None
        return bound.share
    share = workload.structure.extents.share(sizes)
    return share if bound.share is None else share * bound.share


def _ordered(bound: Bound, changed: Mapping[str, Tensor]) -> Tensor:
    """The formulas' values in the table's order, shape ``(rows,)``."""

    def ordered(values: Sequence[Tensor]) -> Tensor:
        if len(values) == 1 and bound.parts[0].rows is None:
            return values[0]
        return torch.cat([*values, bound.fixed, bound.joint.zero]).index_select(0, bound.order)

    priced = bound.joint.priced(changed, ordered, weighted=False)
    return ordered(_evaluate(bound, changed)) if priced is None else priced


def weighted_sum(bound: Bound, workload: Workload) -> Tensor:
    """Return the sum of the values, each ``weight`` times, a scalar."""
    if "weight" in workload.changed or bound.share is not None or any_below_one(workload.changed):
        values = row_values(bound, workload)
        return (values * workload.column("weight").to(values.device)).sum()

    def summed(values: Sequence[Tensor]) -> Tensor:
        weighted = [
            v if part.weight is None else v * part.weight
            for part, v in zip(bound.parts, values, strict=True)
        ]
        return torch.cat([*weighted, bound.fixed_sum.reshape(1)]).sum()

    priced = bound.joint.priced(workload.changed, summed, weighted=True)
    return summed(_evaluate(bound, workload.changed)) if priced is None else priced


def _evaluate(bound: Bound, changed: Mapping[str, Tensor]) -> list[Tensor]:
    """The values of each changing part, shape ``(rows of the part,)``, gradients kept."""
    return [_values(part, changed) for part in bound.parts]


def picked(part: Part, column: Tensor) -> Tensor:
    """The part's rows of a column."""
    return column if part.rows is None else column.index_select(0, part.rows)


def check_finite(values: Tensor, workload: Workload, what: str) -> None:
    """Raise for the first value that is NaN or infinite.

    Raises:
        CostError: names the layer and the metric.
    """
    wrong = ~values.detach().isfinite()
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0, 0])
        sizes = ", ".join(
            f"{name}={workload.column(name)[row].item():g}"
            for name in KINDS[workload.kinds[row]].sizes
            if not bool(workload.column(name)[row].isnan())
        )
        value = values[row].item()
        raise CostError(f"layer {workload.layers[row]!r}: {what} is {value:g} at {sizes}")


def _device(workload: Workload) -> torch.device:
    for column in workload.changed.values():
        return column.device
    return workload.structure.ops.device


def _part(
    workload: Workload,
    group: Group,
    formula: Formula,
    columns: Mapping[str, Tensor],
    what: str,
    device: torch.device,
) -> Part:
    def pick(column: Tensor) -> Tensor:
        return (
            column if group.rows is None else column.index_select(0, group.rows.to(column.device))
        )

    count = len(workload) if group.rows is None else len(group.rows)
    static = {n: pick(columns[n]) for n in formula.names if n not in workload.changed}
    for name, column in static.items():
        if bool(column.isnan().any()):
            _raise_missing(workload, group, name, int(column.isnan().nonzero()[0, 0]), what)
    names = [n for n in formula.names if n in workload.changed]
    rows = None if group.rows is None else group.rows.to(device)
    with torch.no_grad():
        bound = _specialized(formula, {n: c.to(device) for n, c in static.items()}, group, workload)
        weight = pick(columns["weight"]).to(device)
        if not names:
            return Part(rows, count, None, bound({}).expand(count))
        return Part(rows, count, bound, None, weight=weight if bool((weight != 1).any()) else None)


def _specialized(
    formula: Formula, static: Mapping[str, Tensor], group: Group, workload: Workload
) -> Formula:
    try:
        return formula.specialize(static)
    except FormulaError as error:
        row = _first_failing(formula, static)
        if row is None:
            raise
        row = row if group.rows is None else int(group.rows[row])
        at = "" if group.entry is None else f"{group.entry.at}: "
        layer = f"layer {workload.layers[row]!r} ({group.kind})"
        raise FormulaError(f"{at}{layer}: {error}") from None


def _first_failing(formula: Formula, static: Mapping[str, Tensor]) -> int | None:
    """The first row for which a table look-up is off its axes; found one by one."""
    rows = max((len(c) for c in static.values()), default=0)
    for row in range(rows):
        try:
            formula.specialize({n: c[row : row + 1] for n, c in static.items()})
        except FormulaError:
            return row
    return None


def _raise_missing(workload: Workload, group: Group, name: str, index: int, what: str) -> None:
    row = index if group.rows is None else int(group.rows[index])
    layer = f"layer {workload.layers[row]!r} ({group.kind})"
    if name in BITS:
        raise WorkloadError(
            f"{layer}: {what} reads {name!r}, which a float model leaves open;"
            f" use with_precision({name}=...), give the platform a 'deploy',"
            " or let a search decide it (MPS)"
        )
    raise WorkloadError(f"{layer} has no size {name!r}, which {what} reads")


def _values(part: Part, changed: Mapping[str, Tensor]) -> Tensor:
    assert part.formula is not None
    columns = {n: picked(part, changed[n]) for n in part.formula.names}
    return part.formula(columns).expand(part.count)
