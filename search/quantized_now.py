"""Scales and shares of one step: made once, in few operations, for all tensors of a network."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hwcost.search.choices import ChoiceBank, without
from hwcost.search.quantize import Grid
from hwcost.search.quantized_layers import Weight, chosen_of, shares_of


@dataclass(frozen=True, eq=False)
class Activation:
    """How a tensor is quantized now.

    Attributes:
        scales: of each precision, shape ``(choices,)``.
        shares: of each precision, None where there is one.
        grids: of each precision.
    """

    scales: Tensor
    shares: Tensor | None
    grids: tuple[Grid, ...]


@dataclass(frozen=True, eq=False)
class Now:
    """One step.

    Attributes:
        activations: by point.
        weights: shares of each weight's options, by layer; None where it has one.
        decided: by layer, whether every channel has one precision now.
        scales: of weights, by layer, as their rule found them when they were read.
    """

    activations: tuple[Activation, ...]
    weights: tuple[Tensor | None, ...]
    decided: tuple[bool, ...]
    scales: dict[int, Tensor] = field(default_factory=dict)


def activations_now(
    scales: Sequence[Tensor],
    grids: Sequence[tuple[Grid, ...]],
    columns: Sequence[tuple[int, ...]],
    bank: ChoiceBank | None,
    training: bool,
) -> tuple[Activation, ...]:
    """Return how each point is quantized: mixed in training, else as it was chosen.

    Args:
        scales: by point, shape ``(choices,)``.
        grids: by point and choice.
        columns: by point, places of its choices in the bank's columns.
        bank: the choices of all points, None where no point has several.
    """
    if bank is None:
        return tuple(Activation(s, None, g) for s, g in zip(scales, grids, strict=True))
    if not training:
        chosen = bank.chosen().tolist()
        places = [own.index(c) for own, c in zip(columns, chosen, strict=True)]
        triples = zip(scales, grids, places, strict=True)
        return tuple(Activation(s[p : p + 1], None, (g[p],)) for s, g, p in triples)
    sampled = bank.sample()
    rows = sampled.unbind()
    return tuple(
        Activation(s, None if len(g) == 1 else _picked(row, own), g)
        for s, g, row, own in zip(scales, grids, rows, columns, strict=True)
    )


def _picked(row: Tensor, columns: tuple[int, ...]) -> Tensor:
    return row if len(columns) == len(row) else row[list(columns)]


def weights_now(
    weights: Sequence[Weight], bank: ChoiceBank | None, removal: bool, training: bool
) -> tuple[Tensor | None, ...]:
    """Return the shares of each weight's options: mixed in training, else as they were chosen.

    Args:
        removal: whether the bank's first column removes channels.
    """
    if bank is None:
        return (None,) * len(weights)
    if training:
        shares = bank.sample()
        shares = without(shares, 0) if removal else shares
        return tuple(shares_of(weight, shares) for weight in weights)
    chosen = kept_choice(bank, removal)
    return tuple(
        None if len(weight.options) == 1 else _one_hot(weight, chosen, bank) for weight in weights
    )


def kept_choice(bank: ChoiceBank, removal: bool) -> Tensor:
    """Return each row's most probable option but removal, a column of those kept."""
    logits = bank.logits.detach().masked_fill(~bank.allowed, -torch.inf)
    return (logits[:, 1:] if removal else logits).argmax(1)


def _one_hot(weight: Weight, chosen: Tensor, bank: ChoiceBank) -> Tensor:
    place = chosen_of(weight, chosen).to(bank.logits.device)
    hot = torch.nn.functional.one_hot(place, len(weight.options)).to(bank.logits.dtype)
    return hot if weight.by_channel else hot[0]
