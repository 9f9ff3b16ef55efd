"""Rows with less than one channel: a share of the price of the first one.

A row that has lost all its channels costs 0, its fixed overheads included, and one with an
expected 0.3 channels costs 0.3 times the price at 1: linear from 0 to the first channel, so that
an overhead counts with its probability and has a slope there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hwcost.ops import KINDS

#: Sizes of which each must be there for an op to exist.
EXTENTS = tuple(dict.fromkeys(name for kind in KINDS.values() for name in kind.extent))

#: Sizes that are raised to 1 in a row with less; groups go with the channels.
FLOORED = (*EXTENTS, "groups")


@dataclass(frozen=True, eq=False)
class Extents:
    """Which sizes make a row exist.

    Attributes:
        exists_by: size -> the rows whose extent it is, bool, shape ``(rows,)``.
        tied: size -> rows in which it stands for the same channels as the size before it, bool,
            shape ``(rows,)``: those of a depthwise convolution, the units of a recurrent layer.
    """

    exists_by: Mapping[str, Tensor]
    tied: Mapping[str, Tensor]

    def share(self, columns: Mapping[str, Tensor]) -> Tensor:
        """Return what part of its first channel each row has, at most 1, shape ``(rows,)``.

        Args:
            columns: at least one extent.
        """
        parts = {n: self._part(n, column) for n, column in columns.items() if n in self.exists_by}
        for name, before in _TIES.items():
            if name in parts and before in parts:
                one, other, tied = (
                    parts[before],
                    parts[name],
                    self.tied[name].to(parts[name].device),
                )
                parts[before] = torch.where(tied, torch.minimum(one, other), one)
                parts[name] = torch.where(tied, 1, other)
        first, *others = parts.values()
        for part in others:
            first = first * part
        return first

    def _part(self, name: str, column: Tensor) -> Tensor:
        # Not clamp, which has a slope at 1 too.
        return torch.where((column < 1) & self.exists_by[name].to(column.device), column, 1)


#: Size -> the one that it may stand for the same channels as.
_TIES = {"cin": "cout", "hidden": "cout"}


def extents_of(kind_codes: Tensor, sizes: Mapping[str, Tensor]) -> Extents:
    """Return the extents of rows of these kinds and traced sizes."""
    exists_by = {
        name: torch.tensor([name in kind.extent for kind in KINDS.values()])[kind_codes]
        for name in EXTENTS
    }
    depthwise = (sizes["groups"] > 1) & (sizes["groups"] == sizes["cin"]) & exists_by["cin"]
    units = exists_by["hidden"] & (sizes["hidden"] == sizes["cout"])
    return Extents(exists_by, {"cin": depthwise, "hidden": units})


def any_below_one(columns: Mapping[str, Tensor], names: Iterable[str] = EXTENTS) -> bool:
    """Return whether a size is below 1 in some row."""
    return any(_below_one(columns[name]) for name in names if name in columns)


def _below_one(column: Tensor) -> bool:
    if len(column) > _SHORT:
        return bool((column < 1).any())
    return any(size < 1 for size in column.tolist())


#: A column of at most so many rows is looked through faster in Python than with torch.
_SHORT = 64


def floored(columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the columns with extents of 1 or more; what is below has no slope."""
    return {n: c.clamp(min=1) if n in FLOORED else c for n, c in columns.items()}
