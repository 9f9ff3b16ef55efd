"""The tiles of a table whose sizes a search changes: those of its sizes as they are now."""

from dataclasses import replace

import torch
from torch import Tensor

from hwcost.ops import SIZES
from hwcost.plan import Plan
from hwcost.program import is_plain
from hwcost.workload import Workload

#: By how much a size may be above a whole number that it stands for, as a sum of masks is.
_SLACK = 1e-6


def with_tiles(plan: Plan, workload: Workload) -> Workload:
    """Return a table with the tiles of its present sizes, rounded up, among its columns.

    The same table where no tile depends on what it changes, or it has tiles already. Tiles are
    constants: they have no gradient.
    """
    if not plan.tiles or not workload.changed.keys().isdisjoint(plan.tiles) or not is_plain():
        return workload
    whole = {n: _whole(c) for n, c in workload.changed.items() if n in SIZES}
    asked = {own: rows for own, rows in plan.solvers.items() if whole.keys() & own.reads}
    if not asked:
        return workload
    sizes = {**workload.structure.traced, **plan.bits, **whole}
    tiles = {name: column.clone() for name, column in plan.tiles.items()}
    for own, rows in asked.items():
        found, _ = own.tiles({name: sizes[name].index_select(0, rows) for name in own.reads})
        for name, column in zip(own.question.names, found.unbind(1), strict=True):
            tiles[name].index_copy_(0, rows, column)
    device = next(iter(workload.changed.values())).device
    moved = {name: column.to(device) for name, column in tiles.items()}
    return replace(workload, changed={**workload.changed, **moved})


def _whole(column: Tensor) -> Tensor:
    """A size rounded up, 1 at least."""
    return (column.detach().cpu().to(torch.float64) - _SLACK).ceil().clamp(min=1)
