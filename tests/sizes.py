"""Derived sizes of op tables, by the slow and obvious way: sympy on each row's formula."""

import sympy
import torch
from torch import Tensor

from hwcost.derived import derived_exprs
from hwcost.formula import symbol
from hwcost.ops import kind_sizes
from hwcost.workload import Workload


def per_row(workload: Workload, name: str) -> list[float]:
    """Return one derived size of each row."""
    return [_evaluate(workload, row, name) for row in range(len(workload))]


def total(workload: Workload, name: str) -> float:
    """Return one derived size of the whole table."""
    return sum(per_row(workload, name))


def column(workload: Workload, name: str) -> Tensor:
    """Return one derived size as a column, shape ``(rows,)``."""
    return torch.tensor(per_row(workload, name), dtype=torch.float64)


def sizes_of(workload: Workload, layer: str) -> dict[str, float]:
    """Return what the only row of a layer has in its columns."""
    (row,) = workload.rows_of(layer)
    columns = {name: float(workload.column(name)[row]) for name in kind_sizes(workload.kinds[row])}
    return {name: value for name, value in columns.items() if value == value}


def layers_of(workload: Workload, kind: str) -> list[str]:
    """Return the layers of one kind, in order."""
    pairs = zip(workload.layers, workload.kinds, strict=True)
    return [layer for layer, k in pairs if k == kind]


def _evaluate(workload: Workload, row: int, name: str) -> float:
    formula = derived_exprs(workload.kinds[row])[symbol(name)]
    sizes = {s: float(workload.column(s.name)[row]) for s in formula.free_symbols}
    return float(formula.xreplace({s: sympy.Rational(value) for s, value in sizes.items()}))
