"""All decisions of a search as one vector: classes of channels first, then what methods add."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hwcost.search.alive import Alive
from hwcost.search.method import Method


@dataclass(frozen=True, eq=False)
class Decisions:
    """The vector of decisions, shape ``(entries,)``, in three readings.

    Attributes:
        alive: which channels are.
        methods: what else is decided, by ``Method.entries``.
    """

    alive: Alive
    methods: nn.ModuleList

    def soft(self) -> Tensor:
        """Return it as costs count it, differentiable."""
        return _joined(self.alive.soft(), [method.entries() for method in self._each()])

    def binary(self) -> Tensor:
        """Return it as readers see it, straight-through."""
        return _joined(self.alive.binary(), [method.binary_entries() for method in self._each()])

    def hard(self) -> Tensor:
        """Return what an export would be made of, on the CPU."""
        entries = [method.hard_entries() for method in self._each()]
        return _joined(self.alive.hard().float(), [e if e is None else e.cpu() for e in entries])

    def _each(self) -> list[Method]:
        return [method for method in self.methods if isinstance(method, Method)]


def _joined(first: Tensor, rest: list[Tensor | None]) -> Tensor:
    parts = [first, *(part for part in rest if part is not None)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)
