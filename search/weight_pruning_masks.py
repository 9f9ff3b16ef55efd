"""The mask of a pruned weight: a parametrization, so that every reader sees the zeros."""

from collections.abc import Callable
from functools import reduce
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hwcost.errors import SearchError
from hwcost.search.weight_pruning_cell import PruneCell, PruneFiller
from hwcost.search.weight_pruning_fillers import due, fill_multiples, fill_random, fill_smallest

#: Parameters that torch's layers register before all others, in this order.
FIRST = ("weight", "in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


class Pruned(nn.Module):
    """Parametrization that sets weights to 0; neither they nor their gradients pass.

    The state dict has the mask, and the place in the schedule as extra state.

    Args:
        cell: how it is pruned.
        mask: bool, in the weight's shape; False where the weight is 0.
        seed: orders the places that the filler Random takes.
        together: whether the share is one of all weights of the same cell object.

    Attributes:
        ticks: how many samples, steps or epochs it has seen.
    """

    mask: Tensor

    def __init__(self, cell: PruneCell, mask: Tensor, seed: int, together: bool) -> None:
        super().__init__()
        self.cell, self.seed, self.together, self.ticks = cell, seed, together, 0
        self.register_buffer("mask", mask)

    @property
    def share(self) -> float:
        """The share that is due now."""
        return self.cell.share_at(self.ticks)

    def forward(self, weight: Tensor) -> Tensor:
        return torch.where(self.mask, weight, 0)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight

    def get_extra_state(self) -> Tensor:
        return torch.tensor([self.seed, self.ticks])

    def set_extra_state(self, state: Tensor) -> None:
        self.seed, self.ticks = (int(one) for one in state)

    def extra_repr(self) -> str:
        return f"{self.cell.prune_mode}, {self.cell.prune_filler}, share={self.share:g}"


def grown(weights: list[Tensor], pruned: list[Pruned], share: float) -> list[Tensor]:
    """Return the masks of weights, with zeros until they make up a share of them.

    Args:
        weights: as their layers read them. Several are pruned as if they were one.
        pruned: their parametrizations, all of one cell.
        share: of all of them together.
    """
    sizes = [weight.numel() for weight in weights]
    flat = _joined([weight.flatten() for weight in weights])
    mask = _joined([one.mask.flatten() for one in pruned]).to(flat.device)
    cell, count = pruned[0].cell, due(share, len(mask))
    if cell.prune_filler == PruneFiller.RANDOM:
        mask = fill_random(mask, count, pruned[0].seed)
    elif cell.prune_filler == PruneFiller.ITERNONSTRUCT:
        mask = fill_multiples(flat, mask, count, cell.delta)
    else:
        mask = fill_smallest(flat, mask, count)
    parts = zip(mask.split(sizes), weights, strict=True)
    return [part.view(weight.shape).to(weight.device) for part, weight in parts]


def _joined(parts: list[Tensor]) -> Tensor:
    """Return flat tensors as one, in a type that holds all of theirs, on the first's device."""
    dtype = reduce(torch.promote_types, [part.dtype for part in parts])
    return torch.cat([part.to(parts[0].device, dtype) for part in parts])


def parametrizations(module: nn.Module, attribute: str) -> parametrize.ParametrizationList:
    """Return what parametrizes a weight, in the order in which it is applied."""
    return cast(dict[str, parametrize.ParametrizationList], module.parametrizations)[attribute]


def attach(module: nn.Module, attribute: str, pruned: Pruned) -> None:
    """Put the mask after what else parametrizes the weight."""
    parametrize.register_parametrization(module, attribute, pruned)


@torch.no_grad()
def check_detachable(module: nn.Module, attribute: str, pruned: Pruned) -> None:
    """Refuse to make zeros permanent behind a parametrization that would not keep them.

    Raises:
        SearchError: it names the parametrization.
    """
    chain, before = _chain(module, attribute, pruned)
    if not before:
        return
    lost = not all(hasattr(one, "right_inverse") for one in before)
    if not lost:
        value = _applied(before, _inverted(pruned(_applied(before, _originals(chain))), before))
        lost = bool((value[~pruned.mask] != 0).any())
    if lost:
        names = ", ".join(type(one).__name__ for one in before)
        raise SearchError(
            f"the zeros cannot be made permanent: {names}, which makes the weight that is pruned, "
            "has no inverse that keeps them; remove that parametrization first"
        )


@torch.no_grad()
def detach(module: nn.Module, attribute: str, pruned: Pruned) -> None:
    """Take the mask away and leave the zeros in the weight; other parametrizations stay."""
    chain, before = _chain(module, attribute, pruned)
    originals = _originals(chain)
    masked = pruned(_applied(before, originals))
    for original, value in zip(originals, _inverted(masked, before), strict=True):
        original.copy_(value)
    if len(chain) == 1:
        # The class is that of the module's copies too, and torch takes the property away from it.
        cls = type(module)
        module.__class__ = type(cls.__name__, cls.__bases__, dict(vars(cls)))
        parametrize.remove_parametrizations(module, attribute, leave_parametrized=False)
        _reorder(module)
    else:
        del chain[len(before)]


def _reorder(module: nn.Module) -> None:
    """Put weights before biases again; an optimizer's state dict counts parameters in order."""
    names = sorted(module._parameters, key=lambda n: (*FIRST, n).index(n))
    for name in names:
        module._parameters[name] = module._parameters.pop(name)


def _chain(
    module: nn.Module, attribute: str, pruned: Pruned
) -> tuple[parametrize.ParametrizationList, list[nn.Module]]:
    """Return what parametrizes a weight, and the part of it before the mask."""
    chain = parametrizations(module, attribute)
    all_of_it = list(chain)
    return chain, all_of_it[: next(i for i, one in enumerate(all_of_it) if one is pruned)]


def _applied(before: list[nn.Module], originals: list[Tensor]) -> Tensor:
    if not before:
        return originals[0]
    value: Tensor = before[0](*originals)
    for one in before[1:]:
        value = one(value)
    return value


def _inverted(value: Tensor, before: list[nn.Module]) -> list[Tensor]:
    """Return the originals from which the parametrizations before the mask make a value."""
    found: Any = value
    for one in reversed(before):
        invert = cast(Callable[[Any], Any], one.right_inverse)
        found = invert(found)
    return [found] if isinstance(found, Tensor) else list(found)


def _originals(chain: parametrize.ParametrizationList) -> list[Tensor]:
    if chain.is_tensor:
        return [chain.original]
    return [cast(Tensor, getattr(chain, f"original{i}")) for i in range(chain.ntensors)]
