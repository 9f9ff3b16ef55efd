"""Find the tile of each op: the largest that fits, by whole sizes, many ops at once.

The largest is the one with the fewest tiles; of those the one that moves the fewest bytes; of
those the one with the squarest output; of those the one that cuts the sizes named first least.
Along a size that is cut into k pieces, a tile is the smallest multiple of the step that needs no
more than k: the last piece is then about as large as the others.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import sympy
import torch
from torch import Tensor

from hwcost.compile import compile_formula
from hwcost.formula import symbol
from hwcost.tile import Tile
from hwcost.tile_bytes import TileFormula
from hwcost.tile_search import Ops, Search

#: Ops whose tiles a solver remembers.
_REMEMBERED = 1 << 14

#: Sizes that should be alike where nothing else decides.
_SQUARE = (("oh", "ow"), ("m", "n"))

Numbers = Mapping[sympy.Symbol, sympy.Rational]


@dataclass(frozen=True)
class Question:
    """All that a tile depends on, besides the sizes of the op.

    Attributes:
        cut: the sizes that are cut.
        names: the columns of the tile.
        steps: of each, a tile is a multiple of it, or the whole size.
        whole: of each, what it is in the row.
        grouped: whether a row's input channels go with its output channels.
        need: bytes of a tile, over sizes and the tile's.
        moved: bytes that a tile moves.
        capacity: bytes of the memory.
    """

    cut: tuple[str, ...]
    names: tuple[str, ...]
    steps: tuple[int, ...]
    whole: tuple[sympy.Expr, ...]
    grouped: sympy.Basic
    need: sympy.Expr
    moved: sympy.Expr
    capacity: sympy.Rational

    @classmethod
    def of(cls, tile: Tile, numbers: Numbers) -> "Question":
        """Return the question of an entry's tiles, with the numbers of the platform filled in."""
        has_groups = tile.kind.startswith("conv") and "cin" in tile.cut
        return cls(
            tile.cut,
            tile.columns,
            tuple(tile.steps.get(size, 1) for size in tile.cut),
            tuple(tile.whole(size).xreplace(numbers) for size in tile.cut),
            tile.whole("groups") > 1 if has_groups else sympy.false,
            tile.need.xreplace(tile.cuts).xreplace(numbers),
            tile.moved.xreplace(tile.cuts).xreplace(numbers),
            numbers[symbol(f"{tile.memory}.size")],
        )


def solver(tile: Tile, numbers: Numbers) -> "Solver":
    """Return what finds the tiles of an entry; the same for equal questions.

    Args:
        numbers: params and memory sizes that the entry's engine sees.
    """
    return _asked(tile, tuple((s, numbers[s]) for s in tile.reads if s in numbers))


@lru_cache(maxsize=512)
def _asked(tile: Tile, numbers: tuple[tuple[sympy.Symbol, sympy.Rational], ...]) -> "Solver":
    return _solver(Question.of(tile, dict(numbers)))


@lru_cache(maxsize=512)
def _solver(question: Question) -> "Solver":
    return Solver(question)


class Solver:
    """Finds tiles.

    Attributes:
        reads: the columns that the tile depends on.
    """

    def __init__(self, question: Question) -> None:
        self.question = question
        need, moved = (TileFormula(e, question.names) for e in (question.need, question.moved))
        self._whole = [compile_formula(expr) for expr in question.whole]
        self._grouped = compile_formula(question.grouped)
        own = {name for formula in (self._grouped, *self._whole) for name in formula.names}
        self.reads = sorted(own | need.reads | moved.reads)
        cut = question.cut
        square = [(cut.index(a), cut.index(b)) for a, b in _SQUARE if a in cut and b in cut]
        self._search = Search(need, moved, float(question.capacity), next(iter(square), None))
        self._known: dict[tuple[float, ...], list[float]] = {}

    def tiles(self, columns: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the tile of each row, float64, shape ``(rows, cut sizes)``, and whether it fits.

        A row that lacks a size has a tile of NaN; one that fits nowhere has the smallest tile.

        Args:
            columns: at least those of ``reads``, shape ``(rows,)``.
        """
        table = torch.stack([columns[name].to(torch.float64) for name in self.reads], 1)
        with torch.no_grad():
            if len(table) <= _REMEMBERED:
                found = self._remembered(table)
            else:
                first, place = _distinct(table)
                found = self._found(table[first])[place]
        return found.abs(), ~(found < 0).any(1)

    def need(self, columns: Mapping[str, Tensor], tile: Tensor) -> Tensor:
        """Return the bytes that tiles need, all copies of each, shape ``(rows,)``.

        Args:
            tile: shape ``(rows, cut sizes)``.
        """
        return self._at(self._search.need, columns, tile)

    def moved(self, columns: Mapping[str, Tensor], tile: Tensor) -> Tensor:
        """Return the bytes that all tiles of a sample move, shape ``(rows,)``."""
        count = torch.ceil(self.sizes(columns) / tile).prod(1)
        return count * self._at(self._search.moved, columns, tile)

    def _at(self, formula: TileFormula, columns: Mapping[str, Tensor], tile: Tensor) -> Tensor:
        return formula(tile.unbind(1), formula.known(columns, len(tile)).unbind())

    def sizes(self, columns: Mapping[str, Tensor]) -> Tensor:
        """Return the sizes that are cut, whole numbers, shape ``(rows, cut sizes)``."""
        rows = len(next(iter(columns.values())))
        whole = torch.stack([f(columns).expand(rows) for f in self._whole], 1)
        return whole.to(torch.float64).ceil().clamp(min=1)

    def _remembered(self, table: Tensor) -> Tensor:
        """As ``_found``, but of ops that were not asked for before."""
        keys = list(map(tuple, table.tolist()))
        if len(self._known) + len(keys) > 2 * _REMEMBERED:
            self._known = {}
        new = {key: row for row, key in enumerate(keys) if key not in self._known}
        if new:
            tiles = self._found(table[list(new.values())]).tolist()
            self._known |= zip(new, tiles, strict=True)
        found = [self._known[key] for key in keys]
        return torch.tensor(found, dtype=torch.float64).reshape(len(keys), -1)

    def _found(self, table: Tensor) -> Tensor:
        """The tile of each op; the smallest, negative, where it fits nowhere."""
        result = torch.full((len(table), len(self.question.cut)), math.nan, dtype=torch.float64)
        rows = (~table.isnan().any(1)).nonzero().flatten()
        if not len(rows):
            return result
        ops = self._ops({name: table[rows, i] for i, name in enumerate(self.reads)})
        result[rows] = self._search.best(ops)
        return result

    def _ops(self, columns: Mapping[str, Tensor]) -> Ops:
        sizes = self.sizes(columns)
        grouped = self._grouped(columns).expand(len(sizes))
        together = grouped[:, None] & torch.tensor([size == "cin" for size in self.question.cut])
        steps = torch.tensor(self.question.steps, dtype=torch.float64)
        return Ops(columns, sizes, torch.where(together, sizes, steps))


def _distinct(table: Tensor) -> tuple[Tensor, Tensor]:
    """A row of each distinct one, and which of these each row equals; NaN equals nothing."""
    place = torch.zeros(len(table), dtype=torch.int64)
    for column in table.unbind(1):
        if not bool((column == column[:1]).all()):
            values, at = torch.unique(column, return_inverse=True)
            _, place = torch.unique(place * len(values) + at, return_inverse=True)
    count = int(place.max()) + 1 if len(place) else 0
    first = torch.zeros(count, dtype=torch.int64).scatter_(0, place, torch.arange(len(place)))
    return first, place
