"""Search for the best way to cut each of many ops: all numbers of pieces, few before many."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, reduce

import torch
from torch import Tensor

from hwcost.compile import Formula

#: Numbers of tiles that are tried at once; ops that need more are searched size by size.
_ROUNDS = ((1, 1), (2, 8), (9, 64))
_MOST = _ROUNDS[-1][1]

#: Candidates that are looked at together. So few, and without indexing, ``ceil`` and ``prod``:
#: torch would share these among threads, which wait for each other on a busy machine.
_CHUNK = 1 << 13

#: Ops that are searched size by size together, where several sizes are cut.
_OPS = 8


@dataclass(frozen=True, eq=False)
class Ops:
    """Distinct ops whose tiles are sought; all float64.

    Attributes:
        columns: name -> what the formulas read, shape ``(ops,)``.
        sizes: those that are cut, whole numbers, shape ``(ops, cut)``.
        steps: a tile is a multiple of its step or the whole size, shape ``(ops, cut)``; a size
            that must stay whole is its own step.
    """

    columns: Mapping[str, Tensor]
    sizes: Tensor
    steps: Tensor

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, at: Tensor) -> "Ops":
        columns = {name: column.index_select(0, at) for name, column in self.columns.items()}
        return Ops(columns, self.sizes.index_select(0, at), self.steps.index_select(0, at))

    @property
    def smallest(self) -> Tensor:
        """The smallest tile of each, shape ``(ops, cut)``."""
        return torch.minimum(self.sizes, self.steps)


@dataclass(frozen=True, eq=False)
class Candidates:
    """Ways to cut ops: which op, into how many pieces along each size, and the tile.

    Attributes:
        op: int64, shape ``(candidates,)``.
        pieces: float64, shape ``(candidates, cut)``.
        tile: as ``pieces``.
    """

    op: Tensor
    pieces: Tensor
    tile: Tensor

    def __getitem__(self, at: Tensor) -> "Candidates":
        return Candidates(*(t.index_select(0, at) for t in (self.op, self.pieces, self.tile)))

    @property
    def count(self) -> Tensor:
        """Tiles of each, shape ``(candidates,)``."""
        return reduce(torch.mul, self.pieces.unbind(1))


@dataclass(frozen=True, eq=False)
class Search:
    """What makes a tile a good one.

    Attributes:
        names: the tile's columns, one for each size that is cut.
        need: bytes of a tile; not less for a larger one.
        traffic: bytes that all tiles of an op move.
        capacity: bytes that there are.
        square: two sizes, by their places, that should be alike if nothing else decides.
    """

    names: tuple[str, ...]
    need: Formula
    traffic: Formula
    capacity: float
    square: tuple[int, int] | None

    def best(self, ops: Ops) -> Tensor:
        """Return the best tile of each op, of which the smallest tile must fit; ``(ops, cut)``."""
        result = torch.full_like(ops.sizes, math.nan)
        left = torch.arange(len(ops))
        for low, high in _ROUNDS:
            ways = _ways(len(self.names), low, high)
            for part in _parts(left, _CHUNK // len(ways)):
                self._settle(ops[part], _few(ops[part], ways), part, result)
            left = left[result[left, 0].isnan()]
        for part in _parts(left, _CHUNK if len(self.names) == 1 else _OPS):
            self._settle(ops[part], self._fine(ops[part]), part, result)
        return result

    def value(self, formula: Formula, ops: Ops, found: Candidates) -> Tensor:
        """Return the value of a formula for each candidate, shape ``(candidates,)``."""
        read = {n: found.tile[:, i] for i, n in enumerate(self.names) if n in formula.names}
        for name in formula.names:
            if name not in read:
                column = ops.columns[name]
                alike = bool((column == column[:1]).all())
                read[name] = (
                    column[:1].expand(len(found.op)) if alike else column.index_select(0, found.op)
                )
        return formula(read).expand(len(found.op))

    def _settle(self, ops: Ops, found: Candidates, place: Tensor, result: Tensor) -> None:
        """Write the best of the candidates that fit to the places of their ops."""
        found = found[(self.value(self.need, ops, found) <= self.capacity).nonzero().flatten()]
        fewest = torch.full((len(ops),), math.inf, dtype=torch.float64)
        count = found.count
        fewest.scatter_reduce_(0, found.op, count, "amin")
        found = found[(count == fewest.index_select(0, found.op)).nonzero().flatten()]
        found = found[_order(found, self.value(self.traffic, ops, found), self._oblong(found))]
        first = torch.ones(len(found.op), dtype=torch.bool)
        first[1:] = found.op[1:] != found.op[:-1]
        best = found[first.nonzero().flatten()]
        result.index_copy_(0, place.index_select(0, best.op), best.tile)

    def _oblong(self, found: Candidates) -> Tensor:
        """How far a tile is from a square."""
        one, other = (found.tile[:, i] for i in self.square or (0, 0))
        return (one - other).abs()

    def _fine(self, ops: Ops) -> Candidates:
        """All ways to cut ops but along one size, and of that one the fewest pieces that fit."""
        last = (ops.sizes / ops.steps).argmax(1)
        op, pieces = _grids(ops, last)
        parts = zip(op.split(_CHUNK), pieces.split(_CHUNK), strict=True)
        found = [self._searched(ops, *part, last) for part in parts]
        return Candidates(*map(torch.cat, zip(*found, strict=True)))

    def _searched(
        self, ops: Ops, op: Tensor, pieces: Tensor, last: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Those of the ways to cut ops that fit with some tile along the size in place ``last``."""
        place = last.index_select(0, op)[:, None]
        sizes, steps = ops.sizes.index_select(0, op), ops.steps.index_select(0, op)
        tile = _tile(sizes, steps, pieces)
        step = steps.gather(1, place)

        def fits(tile: Tensor) -> Tensor:
            need = self.value(self.need, ops, Candidates(op, pieces, tile))
            return (need <= self.capacity)[:, None]

        # The largest tile that fits, in steps: one of ``low`` does, one of ``high`` does not.
        low = torch.zeros_like(step)
        high = _up(sizes.gather(1, place), step) + 1
        while bool((high - low > 1).any()):
            middle = _down(low + high, 2)
            good = fits(tile.scatter(1, place, middle * step)) & (middle > 0)
            low, high = torch.where(good, middle, low), torch.where(good, high, middle)
        able = (low[:, 0] > 0).nonzero().flatten()
        least = _up(sizes.gather(1, place), (low * step).clamp(min=1))
        pieces = pieces.scatter(1, place, least)
        found = Candidates(op, pieces, _tile(sizes, steps, pieces))[able]
        return found.op, found.pieces, found.tile


def _parts(rows: Tensor, length: int) -> Sequence[Tensor]:
    return rows.split(max(length, 1)) if len(rows) else ()


def _down(a: Tensor, b: Tensor | float) -> Tensor:
    return torch.div(a, b, rounding_mode="floor")


def _up(a: Tensor, b: Tensor) -> Tensor:
    return -_down(-a, b)


def _tile(sizes: Tensor, steps: Tensor, pieces: Tensor) -> Tensor:
    """The smallest tile that cuts a size into no more than so many pieces."""
    return torch.minimum(sizes, _up(_up(sizes, pieces), steps) * steps)


def _few(ops: Ops, ways: Tensor) -> Candidates:
    """The ops cut in those of the ways that are possible."""
    pieces = torch.arange(1, _MOST + 1, dtype=torch.float64)
    tiles = _tile(ops.sizes[:, :, None], ops.steps[:, :, None], pieces)
    possible = _up(ops.sizes[:, :, None], tiles) == pieces
    able = torch.ones(len(ops), len(ways), dtype=torch.bool)
    for i, column in enumerate(ways.unbind(1)):
        able &= possible[:, i].index_select(1, column - 1)
    op, way = able.nonzero().unbind(1)
    taken = ways.index_select(0, way)
    own = tiles.flatten(1).index_select(0, op)
    at = torch.arange(ways.shape[1]) * _MOST + taken - 1
    return Candidates(op, taken.to(torch.float64), own.gather(1, at))


@cache
def _ways(cut: int, low: int, high: int) -> Tensor:
    """All ways to cut sizes into ``low`` to ``high`` tiles together, int64, ``(ways, cut)``."""

    def ways(left: int, most: int) -> Iterator[tuple[int, ...]]:
        if not left:
            yield ()
            return
        for pieces in range(1, most + 1):
            for rest in ways(left - 1, most // pieces):
                yield (pieces, *rest)

    found = [way for way in ways(cut, high) if math.prod(way) >= low]
    return torch.tensor(found, dtype=torch.int64)


def _grids(ops: Ops, without: Tensor) -> tuple[Tensor, Tensor]:
    """All combinations of numbers of pieces, 1 along the size ``without``: op and pieces."""
    if ops.sizes.shape[1] == 1:
        return torch.arange(len(ops)), torch.ones_like(ops.sizes)
    grids = []
    for sizes, steps, at in zip(
        *(t.tolist() for t in (ops.sizes, ops.steps, without)), strict=True
    ):
        pairs = enumerate(zip(sizes, steps, strict=True))
        grids.append(
            torch.cartesian_prod(*(_pieces(s, g)[: 1 if i == at else None] for i, (s, g) in pairs))
        )
    counts = [len(grid) for grid in grids]
    return torch.tensor([op for op, n in enumerate(counts) for _ in range(n)]), torch.cat(grids)


@lru_cache(maxsize=1 << 12)
def _pieces(size: float, step: float) -> Tensor:
    """The numbers of pieces that a size can be cut into, few first, float64."""
    whole, each = torch.tensor([size, step], dtype=torch.float64)
    many = torch.arange(1, math.isqrt(int(size // step)) + 2, dtype=torch.float64)
    pieces: Tensor = torch.unique(torch.cat([many, _up(whole, many * each)]))
    return pieces[_up(whole, _tile(whole, each, pieces)) == pieces]


def _order(found: Candidates, traffic: Tensor, oblong: Tensor) -> Tensor:
    """The order of candidates by op, traffic and shape; of equals those first that cut late."""
    order = torch.arange(len(traffic))
    for key in (*reversed(found.pieces.unbind(1)), oblong, traffic, found.op):
        rank = key.index_select(0, order).argsort(stable=True)
        order = order.index_select(0, rank)
    return order
