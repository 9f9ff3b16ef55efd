"""The tiles of a table whose sizes a search changes: those of its sizes as they are now."""

from collections.abc import Mapping
from dataclasses import replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from hwcost.ops import SIZES
from hwcost.plan import Plan
from hwcost.platform import Platform
from hwcost.program import is_plain
from hwcost.tile_solver import Solver, solver
from hwcost.workload import Workload

#: By how much a size may be above a whole number that it stands for, as a sum of masks is.
_SLACK = 1e-6

#: Plan of a platform -> solver -> the rows whose tiles it finds; worked out once.
_ROWS: WeakKeyDictionary[Plan, Mapping[Solver, Tensor]] = WeakKeyDictionary()


def with_tiles(platform: Platform, plan: Plan, workload: Workload) -> Workload:
    """Return a table with the tiles of its present sizes, rounded up, among its columns.

    The same table where no tile depends on what it changes, or it has tiles already. Tiles are
    constants: they have no gradient.
    """
    if not workload.changed.keys().isdisjoint(plan.tiles):
        return workload
    whole = {n: _whole(c) for n, c in workload.changed.items() if n in SIZES}
    if not plan.tiles or not is_plain():
        return workload
    if plan not in _ROWS:
        _ROWS[plan] = _asked(platform, plan)
    asked = {own: rows for own, rows in _ROWS[plan].items() if whole.keys() & own.reads}
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


def _asked(platform: Platform, plan: Plan) -> Mapping[Solver, Tensor]:
    """Solver -> the rows whose tiles it finds."""
    engines = list(platform.engines.values())
    found: dict[Solver, list[Tensor]] = {}
    for group in plan.groups:
        if group.entry is not None and group.entry.tile is not None:
            numbers = platform.numbers(engines[group.engine])
            rows = torch.arange(len(plan.engine)) if group.rows is None else group.rows
            found.setdefault(solver(group.entry.tile, numbers), []).append(rows)
    return {own: torch.cat(rows) for own, rows in found.items()}


def _whole(column: Tensor) -> Tensor:
    """A size rounded up, 1 at least."""
    return (column.detach().cpu().to(torch.float64) - _SLACK).ceil().clamp(min=1)
