"""Channels removed by a choice of 0 bits."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hwcost.search.channels import Channels
from hwcost.search.choices import ChoiceBank
from hwcost.search.gates_straight import straight_through
from hwcost.search.quantized_layers import Weight

if TYPE_CHECKING:
    from hwcost.search.quantized import QuantizedMethod


class Removal:
    """The factor of channels of a method whose first option removes them.

    Channels that stand or fall together have one decision, that of the first layer that makes
    them; the others choose among the options that keep a channel.

    Args:
        bank: the choices of all layers.
        classes: those that a choice can remove, int64.
        rows: the choice of each of these.
        n_classes: how many there are in all.
        sets: of classes, one at least of each of which stays.
        names: of the axes.
    """

    def __init__(
        self,
        bank: ChoiceBank,
        classes: Tensor,
        rows: Tensor,
        n_classes: int,
        sets: list[Tensor],
        names: set[str],
    ) -> None:
        self.bank, self.classes, self.rows, self.n_classes = bank, classes, rows, n_classes
        self.names = names
        self.members = torch.cat(sets) if sets else torch.zeros(0, dtype=torch.int64)
        sizes = torch.tensor([len(one) for one in sets], dtype=torch.int64)
        self.set_of = torch.arange(len(sets)).repeat_interleave(sizes)
        self.sets = sets

    def soft(self) -> Tensor:
        """Return how probable it is that each class stays."""
        return self._spread(1 - self.bank.probabilities()[self._rows(), 0])

    def binary(self) -> Tensor:
        """Return which classes stay, straight-through."""
        stays = self.soft()
        return straight_through(self.hard().to(stays), stays)

    def hard(self) -> Tensor:
        """Return which classes an export keeps, bool."""
        logits = self.bank.logits.detach()
        kept = self.bank.chosen()[self._rows()] != 0
        alive = torch.ones(self.n_classes, dtype=torch.bool, device=kept.device)
        alive = alive.index_copy(0, self.classes.to(kept.device), kept)
        counts = torch.zeros(len(self.sets), device=kept.device)
        held = alive[self.members.to(kept.device)].float()
        counts.index_add_(0, self.set_of.to(kept.device), held)
        for number in (counts == 0).nonzero().flatten().tolist():
            if not bool(alive[self.sets[number]].any()):
                alive[self._best(self.sets[number], logits)] = True
        return alive

    def _best(self, classes: Tensor, logits: Tensor) -> int:
        """Return the class, of some, that is nearest to staying."""
        place = {int(c): int(r) for c, r in zip(self.classes, self.rows, strict=True)}
        rows = torch.tensor([place[c] for c in classes.tolist()])
        own = logits.masked_fill(~self.bank.allowed, -torch.inf)[rows.to(logits.device)]
        return int(classes[int((own[:, 1:].amax(1) - own[:, 0]).argmax())])

    def _rows(self) -> Tensor:
        return self.rows.to(self.bank.logits.device)

    def _spread(self, values: Tensor) -> Tensor:
        ones = values.new_ones(self.n_classes)
        return ones.index_copy(0, self.classes.to(values.device), values)


def removal(method: "QuantizedMethod", channels: Channels) -> Removal | None:
    """Return the factor of a method's removals, and allow removal in its bank; None without."""
    bank = method.weights
    if bank is None or not method.removes:
        return None
    axes = [axis for axis in channels.axes if set(axis.producers) <= method.prunable]
    owned = _owned(method.layers)
    found: list[tuple[int, int]] = []
    names = set()
    for axis in axes:
        own = [(c, owned[c]) for c in range(axis.start, axis.start + axis.size) if c in owned]
        if len(own) == axis.size:
            found += own
            names.add(axis.name)
    if not found:
        return None
    classes, rows = (torch.tensor(column) for column in zip(*found, strict=True))
    bank.allowed[rows, 0] = True
    sets = _sets(channels, set(classes.tolist()))
    return Removal(bank, classes, rows, channels.n_classes, sets, names)


def _owned(layers: tuple[Weight, ...]) -> dict[int, int]:
    """Return the choice that decides about each class: the first that has it alone."""
    owned: dict[int, int] = {}
    for weight in layers:
        if not weight.by_channel:
            continue
        for place, cls in enumerate(weight.classes.tolist()):
            if cls >= 0:
                owned.setdefault(cls, weight.rows.start + place)
    return owned


def _sets(channels: Channels, decided: set[int]) -> list[Tensor]:
    """Return sets of classes, one of each of which must stay."""
    sets = {tuple(cut.classes.unique().tolist()) for cs in channels.cuts.values() for cut in cs}
    sets |= {tuple(range(a.start, a.start + a.size)) for a in channels.axes}
    return [torch.tensor(one) for one in sorted(sets) if set(one) <= decided]
