"""Rows of an op table at several precisions, or on several engines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from hwcost.search.table import Cell, Count, Term
from hwcost.structure import Structure
from hwcost.workload import Workload


@dataclass(frozen=True)
class Variant:
    """One way to run a row.

    Attributes:
        sizes: columns with a value of their own, such as ``w_bits``.
        parts: column -> the share of the row's size that this variant has, decisions included.
        factors: column -> what else its value is multiplied by.
        case: which of several ways that exclude each other it belongs to.
        engine: where it runs, None for the platform's best.
    """

    sizes: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[str, Count] = field(default_factory=dict)
    factors: Mapping[str, tuple[Count, ...]] = field(default_factory=dict)
    case: int = 0
    engine: str | None = None


def expanded(
    workload: Workload, cells: Sequence[Cell], variants: Mapping[int, Sequence[Variant]]
) -> tuple[Workload, list[Cell]]:
    """Return a table with each row once for each of its variants, and that table's cells.

    Args:
        workload: the traced table; one row for each op.
        cells: its sizes that depend on decisions.
        variants: row -> how it runs; the others are left as they are.
    """
    if not variants:
        return workload, list(cells)
    plan = [(row, v) for row in range(len(workload)) for v in variants.get(row, (Variant(),))]
    structure = _structure(workload.structure, plan)
    own: dict[int, list[Cell]] = {}
    for cell in cells:
        own.setdefault(cell.row, []).append(cell)
    found = [c for new, (row, v) in enumerate(plan) for c in _cells(workload, own, new, row, v)]
    return Workload(structure), found


def _structure(old: Structure, plan: Sequence[tuple[int, Variant]]) -> Structure:
    rows = torch.tensor([row for row, _ in plan])
    traced = {name: column.index_select(0, rows) for name, column in old.traced.items()}
    for name in {name for _, variant in plan for name in variant.sizes}:
        given = [v.sizes.get(name, float(traced[name][i])) for i, (_, v) in enumerate(plan)]
        traced[name] = torch.tensor(given, dtype=torch.float64)
    return replace(
        old,
        layers=tuple(old.layers[row] for row, _ in plan),
        kind_codes=old.kind_codes.index_select(0, rows),
        traced=traced,
        ops=old.ops.index_select(0, rows),
        engines=tuple(v.engine or old.engines[row] for row, v in plan),
        functions=tuple(old.functions[row] for row, _ in plan) if old.functions else (),
        cases=torch.tensor([variant.case for _, variant in plan]),
    )


def _cells(
    workload: Workload, own: Mapping[int, Sequence[Cell]], new: int, row: int, variant: Variant
) -> list[Cell]:
    """Return the cells of a variant; its parts take the place of what the row's cells say."""
    found = {cell.column: replace(cell, row=new) for cell in own.get(row, ())}
    for column, part in variant.parts.items():
        size = variant.sizes.get(column, _size(workload, row, column))
        found[column] = Cell(new, column, (Term(size, (part,)),))
    for column, counts in variant.factors.items():
        if not counts:
            continue
        usual = Cell(new, column, (Term(_size(workload, row, column)),))
        cell = found.get(column, usual)
        terms = tuple(replace(term, counts=(*term.counts, *counts)) for term in cell.terms)
        found[column] = replace(cell, terms=terms)
    return list(found.values())


def _size(workload: Workload, row: int, column: str) -> float:
    return float(workload.structure.traced[column][row])
