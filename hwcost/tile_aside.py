"""The size that is set aside: the largest tile along it, for given tiles along the others."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from hwcost.tile_bytes import TileFormula
from hwcost.tile_pieces import down, up

#: Two bounds of a tile in steps, one that fits and one that does not, and the bytes of each.
_Bounds = tuple[Tensor, Tensor, Tensor, Tensor]


class Aside:
    """The size of some ops that is set aside: that of the most steps.

    Args:
        need: bytes of a tile; not less for a larger one.
        room: bytes that there are.
        known: what ``need`` reads of the ops, shape ``(parts, ops)``.
        sizes: those that are cut, whole numbers, shape ``(ops, cut)``.
        steps: of which a tile has a whole number, unless it is whole; as ``sizes``.

    Attributes:
        place: which of the sizes it is.
    """

    def __init__(
        self, need: TileFormula, room: float, known: Tensor, sizes: Tensor, steps: Tensor
    ) -> None:
        self._need, self._room = need, room
        many = up(sizes, steps)
        self.place = int(many.log2().sum(0).argmax())
        own = torch.stack([x[:, self.place] for x in (many, steps, sizes)])
        self._about = torch.cat([own, known])

    def about(self, op: Tensor) -> Tensor:
        """Return what the other methods read of ops, shape ``(parts, len(op))``."""
        return self._about.index_select(1, op)

    def tile(self, about: Tensor, pieces: Tensor, others: Iterable[Tensor]) -> list[Tensor]:
        """Return tiles that cut the size set aside into no more than so many pieces.

        Args:
            others: the tile along the other sizes, shape ``(tiles,)``.
        """
        return self._tile(about, up(about[0], pieces), others)

    def fits(self, about: Tensor, pieces: Tensor, others: Iterable[Tensor]) -> Tensor:
        """Return whether such tiles fit."""
        return self._bytes(about, up(about[0], pieces), others) <= self._room

    def fewest(self, about: Tensor, others: Sequence[Tensor]) -> Tensor:
        """Return the fewest pieces with which tiles fit, inf for none, shape ``(tiles,)``.

        Between a tile that fits and one that does not, the bytes hint at the largest that fits.
        """
        most, room = about[0], self._room
        low = torch.ones_like(most)
        least, largest = self._bytes(about, low, others), self._bytes(about, most, others)
        result = torch.where(largest <= room, most, torch.where(least <= room, low, math.nan))
        at = left = (~(largest <= room) & (least <= room) & (most > 1)).nonzero().squeeze(1)
        bounds: _Bounds = (low, most, least, largest)
        rest = about
        while len(left):
            rest, others = rest.index_select(1, at), [x.index_select(0, at) for x in others]
            low, high, least, largest = (x.index_select(0, at) for x in bounds)
            bounds = self._closer(rest, others, (low, high, least, largest))
            result.index_copy_(0, left, bounds[0])
            at = (bounds[1] - bounds[0] > 1).nonzero().squeeze(1)
            left = left.index_select(0, at)
        return up(most, result).nan_to_num(math.inf)

    def _closer(self, about: Tensor, others: Iterable[Tensor], bounds: _Bounds) -> _Bounds:
        """Bounds nearer to each other."""
        low, high, least, largest = bounds
        part = ((self._room - least) / (largest - least)).nan_to_num(0.0)
        hint = torch.minimum(low + down((high - low) * part, 1.0), high - 1)
        for at in (hint, torch.minimum(hint + 1, high), down(low + high, 2.0)):
            need = self._bytes(about, at, others)
            fits = need <= self._room
            under, over = fits & (at > low), ~fits & (at < high)
            low, least = torch.where(under, at, low), torch.where(under, need, least)
            high, largest = torch.where(over, at, high), torch.where(over, need, largest)
        return low, high, least, largest

    def _tile(self, about: Tensor, steps: Tensor, others: Iterable[Tensor]) -> list[Tensor]:
        tile = [*others]
        tile.insert(self.place, torch.minimum(steps * about[1], about[2]))
        return tile

    def _bytes(self, about: Tensor, steps: Tensor, others: Iterable[Tensor]) -> Tensor:
        return self._need(self._tile(about, steps, others), about.unbind()[3:])
