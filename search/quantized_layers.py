"""The weights that a method quantizes: what each may choose, and where its choices stand."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hwcost.search.channels import Channels
from hwcost.search.options import Option
from hwcost.search.points import Layer
from hwcost.search.quantize import Grid, weight_grid


@dataclass(frozen=True, eq=False)
class Weight:
    """A quantized weight.

    Attributes:
        layer: the parameter, its bias, and the point that it reads.
        path: of the module.
        channels: how many output channels the parameter has, along ``layer.axis``.
        options: what it may choose, without removal; columns of the bank.
        columns: places of these options in the bank's columns.
        rows: its rows in the bank: one for each channel, or one.
        by_channel: whether channels choose for themselves.
        classes: class of each output channel, -1 where it stays; shape ``(channels,)``.
        rule: how scales follow from weights.
    """

    layer: Layer
    path: str
    channels: int
    options: tuple[Option, ...]
    columns: tuple[int, ...]
    rows: slice
    by_channel: bool
    classes: Tensor
    rule: str

    @cached_property
    def grids(self) -> tuple[Grid, ...]:
        """The grid of each option."""
        return tuple(weight_grid(option.bits) for option in self.options)

    @property
    def name(self) -> str:
        """The parameter's name."""
        return self.layer.weight


def shares_of(weight: Weight, shares: Tensor) -> Tensor | None:
    """Return a weight's shares of its options, None where it has one.

    Args:
        shares: of all rows and options of the bank.

    Returns:
        Shape ``(channels, options)``, or ``(options,)`` where the layer chooses as one.
    """
    if len(weight.options) == 1:
        return None
    own = shares[weight.rows]
    if len(weight.columns) < own.shape[1]:
        own = own[:, list(weight.columns)]
    return own if weight.by_channel else own[0]


def chosen_of(weight: Weight, chosen: Tensor) -> Tensor:
    """Return which of a weight's options each channel takes, int64, shape ``(channels,)``.

    Args:
        chosen: column of the bank for each row, removal not among them.
    """
    columns = torch.tensor(weight.columns)
    own = chosen[weight.rows].cpu()
    place = (own[:, None] == columns).int().argmax(1)
    return place if weight.by_channel else place.expand(weight.channels)


def joined(options: Sequence[Sequence[Option]]) -> tuple[Option, ...]:
    """Return all options that occur, removal first."""
    return tuple(sorted({option for own in options for option in own}))


def classes_of(channels: Channels, layer: Layer, size: int) -> Tensor:
    """Return the class of each output channel of a weight, -1 where it stays.

    Args:
        size: how many output channels the weight has.
    """
    for cut in channels.cuts.get(layer.weight, ()):
        if cut.dim == layer.axis and cut.role == "out":
            return cut.classes
    return torch.full((size,), -1)


def titles(weights: Sequence[Weight]) -> list[str]:
    """Return what each weight is called: its module, or by its own name if that has several."""
    paths = Counter(weight.path for weight in weights)
    return [w.path if w.path and paths[w.path] == 1 else w.name for w in weights]
