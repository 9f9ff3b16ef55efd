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

from hwcost.compile import Formula, compile_formula
from hwcost.formula import symbol
from hwcost.tile import Tile
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
        traffic: bytes that all tiles move.
        capacity: bytes of the memory.
    """

    cut: tuple[str, ...]
    names: tuple[str, ...]
    steps: tuple[int, ...]
    whole: tuple[sympy.Expr, ...]
    grouped: sympy.Basic
    need: sympy.Expr
    traffic: sympy.Expr
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
            tile.need.xreplace(numbers),
            tile.traffic.xreplace(numbers),
            numbers[symbol(f"{tile.memory}.size")],
        )


@lru_cache(maxsize=512)
def solver(question: Question) -> "Solver":
    """Return the solver of a question; one that was asked before remembers its ops."""
    return Solver(question)


class Solver:
    """Finds tiles.

    Attributes:
        reads: the columns that the tile depends on.
    """

    def __init__(self, question: Question) -> None:
        self.question = question
        need, traffic = map(compile_formula, (question.need, question.traffic))
        self._whole = [compile_formula(expr) for expr in question.whole]
        self._grouped = compile_formula(question.grouped)
        formulas = (need, traffic, self._grouped, *self._whole)
        self.reads = sorted({n for f in formulas for n in f.names} - {*question.names})
        cut = question.cut
        square = [(cut.index(a), cut.index(b)) for a, b in _SQUARE if a in cut and b in cut]
        self._search = Search(
            question.names, need, traffic, float(question.capacity), next(iter(square), None)
        )
        self._known: dict[tuple[float, ...], list[float]] = {}

    def tiles(self, columns: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the tile of each row, float64, shape ``(rows, cut sizes)``, and whether it fits.

        A row that lacks a size has a tile of NaN; one that fits nowhere has the smallest tile.

        Args:
            columns: at least those of ``reads``, shape ``(rows,)``.
        """
        table = torch.stack([columns[name].to(torch.float64) for name in self.reads], 1)
        with torch.no_grad():
            first, place = _distinct(table)
            found = self._solved(table[first])[place]
        return found.abs(), ~(found < 0).any(1)

    def need(self, columns: Mapping[str, Tensor], tile: Tensor) -> Tensor:
        """Return the bytes that tiles need, all copies of each, shape ``(rows,)``.

        Args:
            tile: shape ``(rows, cut sizes)``.
        """
        return self._at(self._search.need, columns, tile)

    def moved(self, columns: Mapping[str, Tensor], tile: Tensor) -> Tensor:
        """Return the bytes that all tiles of a sample move, shape ``(rows,)``."""
        return self._at(self._search.traffic, columns, tile)

    def _at(self, formula: Formula, columns: Mapping[str, Tensor], tile: Tensor) -> Tensor:
        read = dict(columns) | dict(zip(self.question.names, tile.unbind(1), strict=True))
        return formula({name: read[name] for name in formula.names}).expand(len(tile))

    def sizes(self, columns: Mapping[str, Tensor]) -> Tensor:
        """Return the sizes that are cut, whole numbers, shape ``(rows, cut sizes)``."""
        rows = len(next(iter(columns.values())))
        whole = torch.stack([f(columns).expand(rows) for f in self._whole], 1)
        return whole.to(torch.float64).ceil().clamp(min=1)

    def _solved(self, table: Tensor) -> Tensor:
        """The tile of each distinct op; the smallest, negative, where it fits nowhere."""
        if len(table) > _REMEMBERED:
            return self._found(table)
        keys = list(map(tuple, table.tolist()))
        new = [i for i, key in enumerate(keys) if key not in self._known]
        if len(self._known) + len(new) > _REMEMBERED:
            self._known, new = {}, list(range(len(keys)))
        if new:
            tiles = self._found(table[new]).tolist()
            self._known |= {keys[i]: tile for i, tile in zip(new, tiles, strict=True)}
        found = [self._known[key] for key in keys]
        return torch.tensor(found, dtype=torch.float64).reshape(len(keys), -1)

    def _found(self, table: Tensor) -> Tensor:
        result = torch.full((len(table), len(self.question.cut)), math.nan, dtype=torch.float64)
        rows = (~table.isnan().any(1)).nonzero().flatten()
        if not len(rows):
            return result
        ops = self._ops({name: table[rows, i] for i, name in enumerate(self.reads)})
        smallest = ops.smallest
        fits = self.need(ops.columns, smallest) <= self._search.capacity
        result[rows[~fits]] = -smallest[~fits]
        result[rows[fits]] = self._search.best(ops[fits.nonzero().flatten()])
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
