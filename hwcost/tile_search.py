"""Search for the best way to cut each of many ops: bounds first, and then all that is left.

Of each op, one size is set aside: that of the most steps. For a given tile along the others, the
largest along this one follows, since a larger tile never takes fewer bytes. The numbers of
pieces along the others are halved into boxes. Nothing in a box has fewer tiles than its fewest
pieces and what its smallest tile leaves for the size set aside; a box that cannot do with as few
tiles as are known to suffice is left out.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hwcost.errors import FormulaError
from hwcost.tile_aside import Aside
from hwcost.tile_boxes import Boxes, Grid
from hwcost.tile_bytes import TileFormula
from hwcost.tile_pieces import down, up

#: How often all ways to cut an op are halved at first; more often while boxes are so few.
_TIMES = 3
_FEW = 1 << 12

#: The width at which the best boxes of an op, so many, are asked what they can do with.
_TRIED, _KEPT = 2, 4

#: Ops that are searched together; fewer where lists of pieces are long.
_OPS = 256
_LISTED = 1 << 18


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
class Search:
    """What makes a tile a good one.

    Attributes:
        need: bytes of a tile; not less for a larger one.
        moved: bytes that a tile moves.
        capacity: bytes that there are.
        square: two sizes, by their places, that should be alike if nothing else decides.
    """

    need: TileFormula
    moved: TileFormula
    capacity: float
    square: tuple[int, int] | None

    def best(self, ops: Ops) -> Tensor:
        """Return the best tile of each op, ``(ops, cut)``; if none fits, minus the smallest.

        Raises:
            FormulaError: the whole of some op takes fewer bytes than its smallest tile.
        """
        known, smallest = self.need.known(ops.columns, len(ops)), ops.smallest
        most, least = (self.need(tile.unbind(1), known.unbind()) for tile in (ops.sizes, smallest))
        if bool((most < least).any()):
            raise FormulaError("'bytes' are fewer for a larger tile")
        whole = most <= self.capacity
        result = torch.where(whole[:, None], ops.sizes, -smallest)
        left = ((least <= self.capacity) & ~whole).nonzero().squeeze(1)
        if len(left):
            longest = math.isqrt(int(up(ops.sizes, ops.steps).max())) + 1
            for part in left.split(max(min(_OPS, _LISTED // longest), 1)):
                cutting = _Cutting(self, ops[part], known.index_select(1, part))
                result.index_copy_(0, part, cutting.best())
        return result


class _Cutting:
    """A search for the tiles of a few ops, of which the smallest tile fits and the whole does not.

    Args:
        known: what the bytes of a tile depend on.
    """

    def __init__(self, search: Search, ops: Ops, known: Tensor) -> None:
        self._search, self._ops = search, ops
        self._aside = Aside(search.need, search.capacity, known, ops.sizes, ops.steps)

    @cached_property
    def _grid(self) -> Grid:
        """All ways to cut along the other sizes."""
        others = [i for i in range(self._ops.sizes.shape[1]) if i != self._aside.place]
        return Grid(self._ops.sizes[:, others], self._ops.steps[:, others])

    def best(self) -> Tensor:
        """Return the best tile of each op, shape ``(ops, cut)``."""
        if self._ops.sizes.shape[1] == 1:
            about = self._aside.about(torch.arange(len(self._ops)))
            return torch.stack(self._aside.tile(about, self._aside.fewest(about, ()), ()), 1)
        boxes, own, enough = self._begun()
        while boxes.width > 1:
            boxes = self._able(self._grid.halved(boxes), enough)
            if boxes.width == _TRIED:
                enough = self._tried(boxes, enough)
            elif boxes.width == 1:
                own = self._own(boxes)
        return self._chosen(boxes, own)

    def _own(self, boxes: Boxes) -> Tensor:
        """The fewest pieces along the size set aside, with the smallest tile of each box."""
        about = self._aside.about(boxes.op)
        return self._aside.fewest(about, self._grid.smallest(boxes).unbind())

    def _begun(self) -> tuple[Boxes, Tensor, Tensor]:
        """Large boxes, their pieces along the size set aside, and how many tiles suffice an op."""
        grid = self._grid
        boxes = grid.begun(_TIMES, _FEW)
        boxes = boxes[(grid.fewest(boxes) < math.inf).nonzero().squeeze(1)]
        own = self._own(boxes)
        enough = self._least(boxes.op, grid.most(boxes) * own)
        able = grid.fewest(boxes) * own <= enough.index_select(0, boxes.op)
        at = able.nonzero().squeeze(1)
        return boxes[at], own.index_select(0, at), enough

    def _able(self, boxes: Boxes, enough: Tensor) -> Boxes:
        """Those of the boxes that may do with so many tiles."""
        fewest, most = self._grid.fewest(boxes), enough.index_select(0, boxes.op)
        at = (fewest <= most).nonzero().squeeze(1)
        boxes, left = boxes[at], down(most.index_select(0, at), fewest.index_select(0, at))
        fits = self._aside.fits(self._aside.about(boxes.op), left, self._grid.smallest(boxes))
        return boxes[fits.nonzero().squeeze(1)]

    def _tried(self, boxes: Boxes, enough: Tensor) -> Tensor:
        """With how many tiles each op can do, by a few of its boxes."""
        most = self._grid.most(boxes)
        order = most.argsort(stable=True)
        order = order.index_select(0, boxes.op.index_select(0, order).argsort(stable=True))
        op = boxes.op.index_select(0, order)
        place = torch.arange(len(op)) - torch.searchsorted(op, op)
        boxes = boxes[order.index_select(0, (place < _KEPT).nonzero().squeeze(1))]
        tried = self._least(boxes.op, self._grid.most(boxes) * self._own(boxes))
        return torch.minimum(enough, tried)

    def _least(self, op: Tensor, count: Tensor) -> Tensor:
        """The least count of each op, shape ``(ops,)``."""
        least = torch.full((len(self._ops),), math.inf, dtype=torch.float64)
        return least.scatter_reduce_(0, op, count, "amin")

    def _chosen(self, boxes: Boxes, own: Tensor) -> Tensor:
        """The tile of each op with the fewest tiles; of equals, the best."""
        count = self._grid.most(boxes) * own
        fewest = self._least(boxes.op, count).index_select(0, boxes.op)
        at = (count == fewest).nonzero().squeeze(1)
        boxes, own = boxes[at], own.index_select(0, at)
        pieces = [*self._grid.pieces(boxes)]
        pieces.insert(self._aside.place, own)
        tile = self._aside.tile(self._aside.about(boxes.op), own, self._grid.smallest(boxes))
        first = self._first(boxes.op, tile, pieces)
        found = torch.stack(tile, 1).index_select(0, first)
        return self._ops.smallest.index_copy(0, boxes.op.index_select(0, first), found)

    def _first(self, op: Tensor, tile: Sequence[Tensor], pieces: Sequence[Tensor]) -> Tensor:
        """The places of the best tile of each op: the least traffic, square, cut late."""
        moved = self._search.moved
        known = moved.known(self._ops.columns, len(self._ops)).index_select(1, op)
        one, other = self._search.square or (0, 0)
        traffic, oblong = moved(tile, known.unbind()), (tile[one] - tile[other]).abs()
        order = torch.arange(len(op))
        for key in (*reversed(pieces), oblong, traffic, op):
            order = order.index_select(0, key.index_select(0, order).argsort(stable=True))
        op = op.index_select(0, order)
        new = torch.ones(len(op), dtype=torch.bool)
        new[1:] = op[1:] != op[:-1]
        return order.index_select(0, new.nonzero().squeeze(1))
