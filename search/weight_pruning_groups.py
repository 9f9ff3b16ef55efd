"""Weights that one share is counted over."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hwcost.errors import SearchError
from hwcost.search.weight_pruning_cell import PruneCell, PruneMode
from hwcost.search.weight_pruning_layers import Weight, named
from hwcost.search.weight_pruning_masks import Pruned, attach, grown, parametrizations


@dataclass(frozen=True, eq=False)
class Group:
    """Weights whose share holds for all of them together; most often one."""

    weights: list[Weight]
    pruned: list[Pruned]

    @property
    def cell(self) -> PruneCell:
        return self.pruned[0].cell

    @property
    def name(self) -> str:
        return self.weights[0].name

    def masks(self, share: float) -> list[Tensor]:
        """Return its masks with more zeros, until they make up a share.

        Raises:
            SearchError: a weight is NaN or infinite.
        """
        values = [weight.value for weight in self.weights]
        for weight, value in zip(self.weights, values, strict=True):
            wrong = value.numel() - int(value.isfinite().sum())
            if wrong:
                raise SearchError(
                    f"layer {weight.name!r}: {wrong} of its {value.numel()} weights are NaN or "
                    "infinite; expected finite weights to prune"
                )
        return grown(values, self.pruned, share)

    def places(self) -> Iterator[tuple[Weight, Pruned, tuple[nn.Module, str]]]:
        """Yield each attribute that a mask is on."""
        for weight, pruned in zip(self.weights, self.pruned, strict=True):
            for at in weight.holders:
                yield weight, pruned, at

    def install(self, masks: list[Tensor]) -> None:
        """Put the masks on the weights."""
        for pruned, mask in zip(self.pruned, masks, strict=True):
            pruned.mask.copy_(mask)
        for _, pruned, (module, attribute) in self.places():
            attach(module, attribute, pruned)

    @torch.no_grad()
    def fill(self, share: float) -> None:
        """Prune until a share."""
        for pruned, mask in zip(self.pruned, self.masks(share), strict=True):
            pruned.mask.copy_(mask)

    def tick(self, amount: int) -> None:
        """Let time pass, and prune more where that is due."""
        before = self.pruned[0].ticks
        for pruned in self.pruned:
            pruned.ticks += amount
        if self.cell.updates_at(before) == self.cell.updates_at(before + amount):
            return
        share = self.pruned[0].share
        if share > self.cell.share_at(before):
            self.fill(share)

    @property
    def finished(self) -> bool:
        """Whether nothing more will be pruned."""
        return self.cell.prune_mode != PruneMode.GRADUAL or (
            self.pruned[0].share >= self.cell.threshold
        )


def grouped(pairs: list[tuple[Weight, Pruned]]) -> list[Group]:
    """Return weights in groups: those of one cell object if it counts them together."""
    groups: dict[int, Group] = {}
    for weight, pruned in pairs:
        key = id(pruned.cell) if pruned.together else id(pruned)
        group = groups.setdefault(key, Group([], []))
        group.weights.append(weight)
        group.pruned.append(pruned)
    return list(groups.values())


def find_pruned(model: nn.Module) -> list[tuple[Weight, Pruned]]:
    """Return the weights of a model that are pruned."""
    found: dict[Pruned, list[tuple[str, nn.Module, str]]] = {}
    for path, module in model.named_modules():
        if not parametrize.is_parametrized(module):
            continue
        for attribute in module.parametrizations:
            for one in parametrizations(module, str(attribute)):
                if isinstance(one, Pruned):
                    at = named(path, str(attribute)), module, str(attribute)
                    found.setdefault(one, []).append(at)
    return [
        (Weight(tuple(at[0] for at in places), tuple(at[1:] for at in places)), pruned)
        for pruned, places in found.items()
    ]
