"""Boxes of ways to cut ops: ranges of the numbers of pieces along some sizes, which are halved."""

import itertools
import math
from dataclasses import dataclass
from functools import cache, reduce

import torch
from torch import Tensor

from hwcost.tile_pieces import pieces, up


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of ways to cut ops.

    Attributes:
        op: which op, int64, shape ``(boxes,)``.
        first: place in the grid's lists of the fewest pieces along each size, int64, shape
            ``(sizes, boxes)``.
        width: how many places there are in a box along each size, a power of two.
    """

    op: Tensor
    first: Tensor
    width: int

    def __getitem__(self, at: Tensor) -> "Boxes":
        return Boxes(self.op.index_select(0, at), self.first.index_select(1, at), self.width)

    @property
    def last(self) -> Tensor:
        """Place of the most pieces, as ``first``."""
        return self.first + (self.width - 1)


class Grid:
    """All ways to cut ops along some sizes.

    Args:
        sizes: whole numbers, float64, shape ``(ops, sizes)``.
        steps: of which a tile has a whole number, unless it is whole; as ``sizes``.
    """

    def __init__(self, sizes: Tensor, steps: Tensor) -> None:
        whole = up(sizes, steps)
        few = pieces(whole)
        count = (few < math.inf).sum(-1, keepdim=True)
        most = few.gather(-1, torch.minimum(torch.arange(few.shape[-1]), count - 1))
        tiles = torch.minimum(up(whole[..., None], most) * steps[..., None], sizes[..., None])
        self._few, self._most, self._tiles = few.flatten(), most.flatten(), tiles.flatten()
        self._shape = few.shape
        self._lengths = [1 << (n - 1).bit_length() for n in count[..., 0].amax(0).tolist()]

    def begun(self, times: int, few: int) -> Boxes:
        """Return boxes with all ways to cut ops, halved some times, or until there are many.

        Args:
            few: halved more often while there are not more boxes.
        """
        ops, sizes, width = self._shape
        first = torch.arange(0, ops * sizes * width, width).reshape(ops, sizes).t()
        depth = width.bit_length() - 1
        able = [t for t in range(depth + 1) if t <= times or ops * self._count(t) <= few]
        return self.halved(Boxes(torch.arange(ops), first, width), able[-1])

    def halved(self, boxes: Boxes, times: int = 1) -> Boxes:
        """Return the halves of boxes along all sizes, those of a box next to each other."""
        width = boxes.width >> times
        parts = _parts(tuple(max(min(n, boxes.width) // width, 1) for n in self._lengths)) * width
        first = (boxes.first[:, :, None] + parts[:, None, :]).flatten(1)
        op = boxes.op[:, None].expand(-1, parts.shape[1]).reshape(-1)
        return Boxes(op, first, width)

    def _count(self, times: int) -> int:
        """Boxes of an op that was halved so often."""
        return math.prod(max(n * 2**times // self._shape[-1], 1) for n in self._lengths)

    def fewest(self, boxes: Boxes) -> Tensor:
        """Return the fewest pieces in a box; inf for one that is empty."""
        return reduce(torch.mul, self._few.take(boxes.first).unbind())

    def most(self, boxes: Boxes) -> Tensor:
        """Return the most pieces in a box."""
        return reduce(torch.mul, self.pieces(boxes))

    def pieces(self, boxes: Boxes) -> tuple[Tensor, ...]:
        """Return the most pieces in a box along each size, shape ``(boxes,)``."""
        return self._most.take(boxes.last).unbind()

    def smallest(self, boxes: Boxes) -> Tensor:
        """Return the smallest tile in a box, shape ``(sizes, boxes)``."""
        return self._tiles.take(boxes.last)


@cache
def _parts(numbers: tuple[int, ...]) -> Tensor:
    """All combinations of parts of which there are so many, shape ``(sizes, combinations)``."""
    return torch.tensor(list(itertools.product(*map(range, numbers)))).t()
