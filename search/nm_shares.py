"""The density of pruned layers in the vector of decisions: what stays, and what there is."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hwcost.search.nm_layers import NMLayer
from hwcost.search.table import Cell, Count, Term


class Shares:
    """Two entries for each layer: how many weights stay along its dimension, and of how many.

    Both are whole numbers, so that their quotient is exact.

    Args:
        layers: the pruned layers.
        n, m: so many of so many.
        dense: density of each layer before the search.
    """

    def __init__(self, layers: Sequence[NMLayer], n: int, m: int, dense: Sequence[float]) -> None:
        self.layers, self.n, self.m = layers, n, m
        sizes = [len(layer.classes) for layer in layers]
        self.total = 2 * len(layers)
        self.before = torch.tensor(
            [n for d, s in zip(dense, sizes, strict=True) for n in (d * s, s)]
        )
        self._classes = torch.cat([layer.classes for layer in layers])
        each = [(len(la.classes) // la.blocks, la.blocks) for la in layers]
        lengths = torch.tensor([length for length, blocks in each for _ in range(blocks)])
        self._block = torch.arange(len(lengths)).repeat_interleave(lengths)
        self._layer = torch.arange(len(layers)).repeat_interleave(
            torch.tensor([layer.blocks for layer in layers])
        )

    def __call__(self, alive: Tensor) -> Tensor:
        """Return the entries, float32.

        Args:
            alive: bool, shape ``(n_classes + 1,)``, the last True.
        """
        there = alive[self._classes].long()
        counts = torch.zeros(len(self._layer), dtype=torch.int64).index_add(0, self._block, there)
        stay = counts // self.m * self.n + -(-(counts % self.m) * self.n // self.m)
        none = torch.zeros(len(self.layers), dtype=torch.int64)
        pairs = [none.index_add(0, self._layer, numbers) for numbers in (stay, counts)]
        return torch.stack(pairs, 1).flatten().float()

    def cells(self, start: int) -> list[Cell]:
        """Return the cells of all rows that read the layers.

        Args:
            start: where the entries begin in the vector of decisions.
        """
        return [
            Cell(row, "density", *(_term(start + 2 * number + part) for part in (0, 1)))
            for number, layer in enumerate(self.layers)
            for row in layer.rows
        ]


def _term(entry: int) -> tuple[Term, ...]:
    return (Term(1, (Count((entry,)),)),)
