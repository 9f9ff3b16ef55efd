"""Which channels are alive, as one vector over all classes."""

from typing import Protocol

import torch
from torch import Tensor, nn

from hwcost.errors import SearchError
from hwcost.search.channels import Channels


class Factor(Protocol):
    """A method's say in which channels are alive; every result has shape ``(n_classes,)``.

    ``names`` are the axes that it decides.
    """

    names: set[str]

    def soft(self) -> Tensor:
        """Return shares in [0, 1], differentiable: what costs count."""
        ...

    def binary(self) -> Tensor:
        """Return 0 or 1, with the gradient of a straight-through estimate: what readers see."""
        ...

    def hard(self) -> Tensor:
        """Return what an export keeps, bool."""
        ...


class Alive(nn.Module):
    """The product of all factors, by class."""

    def __init__(self, channels: Channels) -> None:
        super().__init__()
        self.channels = channels
        self.factors: list[Factor] = []

    def add(self, factor: Factor) -> None:
        """Let a method have its say.

        Raises:
            SearchError: another one decides about the same channels.
        """
        twice = sorted(factor.names & self.searched())
        if twice:
            raise SearchError(f"two methods decide about the channels of layer {twice[0]!r}")
        self.factors.append(factor)

    def soft(self) -> Tensor:
        """Return each class's share in [0, 1], float32, shape ``(n_classes,)``."""
        return self._product([factor.soft() for factor in self.factors])

    def binary(self) -> Tensor:
        """Return 0 or 1 for each class, straight-through, shape ``(n_classes,)``."""
        return self._product([factor.binary() for factor in self.factors])

    def hard(self) -> Tensor:
        """Return which classes an export keeps, bool, shape ``(n_classes,)``, on the CPU."""
        alive = torch.ones(self.channels.n_classes, dtype=torch.bool)
        for factor in self.factors:
            alive &= factor.hard().cpu()
        return alive

    def searched(self) -> set[str]:
        """Return the names of the axes that some factor decides."""
        none: set[str] = set()
        return none.union(*(factor.names for factor in self.factors))

    def _product(self, factors: list[Tensor]) -> Tensor:
        if not factors:
            return torch.ones(self.channels.n_classes)
        product = factors[0]
        for factor in factors[1:]:
            product = product * factor
        return product
