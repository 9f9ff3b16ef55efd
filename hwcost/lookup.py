"""Table look-ups on columns, by exact match."""

from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor

from hwcost.errors import FormulaError
from hwcost.quotient import Table


def lookup(table: Table) -> Callable[..., Tensor]:
    """Return the function from one value for each axis to the table's value.

    Values of shape ``(rows,)`` or ``()`` give a result of their common shape, without a slope.

    The function raises:
        FormulaError: a value is not on its axis; the message names it and those that are.
    """
    entries = torch.tensor([float(v) for v in table.values], dtype=torch.float64, device="cpu")
    axes = [_axis(values) for _, values in table.axes]

    def find(*columns: Tensor) -> Tensor:
        like = max(columns, key=Tensor.dim)
        position = torch.zeros((), dtype=torch.int64, device=like.device)
        for i, (column, (known, order)) in enumerate(zip(columns, axes, strict=True)):
            known = known.to(like)
            column = column.detach().to(like).contiguous()
            place = torch.searchsorted(known, column).clamp_max(len(known) - 1)
            if not bool((known[place] == column).all()):
                _raise_missing(table, i, columns, known[place] != column)
            position = position * len(known) + order.to(like.device)[place]
        return entries.to(like)[position]

    return find


def _axis(values: tuple[Fraction, ...]) -> tuple[Tensor, Tensor]:
    """The known values in rising order, and their positions in the table."""
    known = torch.tensor([float(v) for v in values], dtype=torch.float64, device="cpu")
    return known.sort()


def _raise_missing(table: Table, axis: int, columns: tuple[Tensor, ...], missing: Tensor) -> None:
    shape = torch.broadcast_shapes(*(c.shape for c in columns))
    row = int(missing.expand(shape).reshape(-1).nonzero()[0])
    at = [c.detach().expand(shape).reshape(-1)[row].item() for c in columns]
    name, known = table.axes[axis]
    raise FormulaError(
        f"{table.name}[{', '.join(f'{a:g}' for a in at)}]: {name} has no {at[axis]:g}; "
        f"known: {', '.join(f'{float(v):g}' for v in known)}"
    )
