"""The tiles of a table's rows, as columns that formulas read."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from hwcost.errors import FormulaError
from hwcost.platform import Entry
from hwcost.tile_solver import Numbers, Solver, solver
from hwcost.units import engineering


def tiles_of(
    entries: Sequence[Entry], entry: Tensor, columns: Mapping[str, Tensor], numbers: Numbers
) -> tuple[dict[str, Tensor], Tensor]:
    """Return column -> the row's solved tile, and the rows of which no tile fits.

    Args:
        entry: index of each row's entry, -1 for none; int64, shape ``(rows,)``.
        columns: sizes and bits of the rows.
        numbers: params and memory sizes that the entries' engine sees.

    Raises:
        FormulaError: the bytes of some op's tiles cannot be worked out.
    """
    tiles: dict[str, Tensor] = {}
    unfit = torch.zeros(entry.shape, dtype=torch.bool)
    for own, alike in _by_solver(entries, numbers).items():
        rows = torch.isin(entry, torch.tensor(alike)).nonzero().squeeze(1)
        if len(rows):
            read = {name: columns[name].index_select(0, rows) for name in own.reads}
            try:
                found, fits = own.tiles(read)
            except FormulaError as error:
                raise FormulaError(f"{entries[alike[0]].at}: {error}") from None
            for name, column in zip(own.question.names, found.unbind(1), strict=True):
                tiles.setdefault(name, _nothing(entry)).index_copy_(0, rows, column)
            unfit.index_copy_(0, rows, ~fits)
    return tiles, unfit


def _by_solver(entries: Sequence[Entry], numbers: Numbers) -> dict[Solver, list[int]]:
    """Solver -> the entries whose tiles it finds: those of activations are those of sums."""
    found: dict[Solver, list[int]] = {}
    for number, one in enumerate(entries):
        if one.tile is not None:
            found.setdefault(solver(one.tile, numbers), []).append(number)
    return found


def rows_by_solver(pairs: Iterable[tuple[Solver, Tensor]]) -> dict[Solver, Tensor]:
    """Return solver -> all the rows whose tiles it finds, int64."""
    found: dict[Solver, list[Tensor]] = {}
    for own, rows in pairs:
        found.setdefault(own, []).append(rows)
    return {own: torch.cat(rows) for own, rows in found.items()}


def joined_tiles(offers: Sequence[Mapping[str, Tensor]], chosen: Tensor) -> dict[str, Tensor]:
    """Return column -> the tiles on the engine of each row.

    Args:
        offers: the tiles on each engine.
        chosen: index of the row's engine, -1 for none; int64, shape ``(rows,)``.
    """
    tiles: dict[str, Tensor] = {}
    for index, one in enumerate(offers):
        for name, column in one.items():
            before = tiles.get(name, _nothing(chosen))
            tiles[name] = torch.where(chosen == index, column, before)
    return tiles


def unfit_text(entry: Entry, columns: Mapping[str, Tensor], row: int, numbers: Numbers) -> str:
    """Return why no tile of a row fits: its sizes, the smallest tile, what there is."""
    tile = entry.tile
    assert tile is not None
    own = solver(tile, numbers)
    read = {name: columns[name][row : row + 1] for name in own.reads}
    smallest, _ = own.tiles(read)
    whole, least = own.sizes(read)[0].tolist(), smallest[0].tolist()
    sizes = ", ".join(f"{size}={number:g}" for size, number in zip(tile.cut, whole, strict=True))
    parts = ", ".join(f"t{size}={number:g}" for size, number in zip(tile.cut, least, strict=True))
    twice = ", twice because of double_buffer" if tile.copies > 1 else ""
    return (
        f"no tile of {entry.kind!r} with {sizes} fits into {tile.memory!r}: the smallest"
        f" ({parts}) takes {engineering(float(own.need(read, smallest)[0]), 'B')}{twice};"
        f" the memory has {engineering(float(own.question.capacity), 'B')} ({entry.at})"
    )


def _nothing(like: Tensor) -> Tensor:
    return torch.full(like.shape, math.nan, dtype=torch.float64)
