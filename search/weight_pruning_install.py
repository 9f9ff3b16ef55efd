"""Weight pruning of a model."""

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import nn

from hwcost.errors import SearchError
from hwcost.search.weight_pruning_cell import PruneCell, PruneFiller, PruneMode
from hwcost.search.weight_pruning_groups import grouped
from hwcost.search.weight_pruning_handle import WeightPruning
from hwcost.search.weight_pruning_layers import Weight, check, chosen, find_weights
from hwcost.search.weight_pruning_masks import Pruned

#: Whether a cell's share holds for each layer, or for all of the cell's layers together.
SCOPES = ("layer", "global")


@torch.no_grad()
def prune_weights(
    model: nn.Module,
    cells: PruneCell | Mapping[str, PruneCell],
    *,
    scope: Literal["layer", "global"] = "layer",
    ignore: Iterable[str] = (),
    generator: torch.Generator | None = None,
) -> WeightPruning:
    """Prune weights of convolutions, linear layers and attentions, in place.

    The parameters stay the same objects, so an optimizer made before goes on. Readers of a
    weight, a layer that shares it too, see zeros under its mask, whatever an optimizer does.

    Args:
        model: or one layer alone.
        cells: one for all layers, or by name of a layer or pattern of names (``encoder.*``); a
            name goes before patterns, and layers that nothing fits are left alone.
        scope: ``global`` counts a cell's share over all its layers together, for the filler
            Magnitude only.
        ignore: names and patterns of layers to leave alone.
        generator: for the filler Random; torch's own without one.

    Raises:
        UnknownName: a name or a pattern fits no layer.
        SearchError: a weight cannot be pruned: NaN, lazy, integer, pruned already. Nothing is
            changed then.
    """
    if scope not in SCOPES:
        raise SearchError(f"scope is {scope!r}; expected 'layer' or 'global'")
    by_name = {"*": cells} if isinstance(cells, PruneCell) else _checked(cells)
    pairs = [
        (weight, cell)
        for weight, cell in chosen(find_weights(model), by_name, ignore, model)
        if cell.prune_mode != PruneMode.IDENTITY
    ]
    for weight, _ in pairs:
        check(weight)
    groups = grouped([(weight, _started(weight, cell, scope, generator)) for weight, cell in pairs])
    filled = [group.masks(group.cell.share_at(0)) for group in groups]
    for group, masks in zip(groups, filled, strict=True):
        group.install(masks)
    return WeightPruning(groups)


def _checked(cells: object) -> Mapping[str, PruneCell]:
    if not isinstance(cells, Mapping):
        raise SearchError(f"expected a PruneCell or one for each name; got {type(cells).__name__}")
    for name, cell in cells.items():
        if not isinstance(cell, PruneCell):
            raise SearchError(f"the cell of {name!r} is {cell!r}; expected a PruneCell")
    return cells


def _started(
    weight: Weight, cell: PruneCell, scope: str, generator: torch.Generator | None
) -> Pruned:
    """Return the parametrization of a weight, with nothing pruned yet."""
    together = scope == "global"
    if together and cell.prune_filler != PruneFiller.MAGNITUDE:
        raise SearchError(
            f"layer {weight.name!r}: the filler {cell.prune_filler} prunes layer by layer; "
            "scope='global' needs Magnitude"
        )
    mask = torch.ones_like(weight.value, dtype=torch.bool)
    return Pruned(cell, mask, _seed(cell, generator), together)


def _seed(cell: PruneCell, generator: torch.Generator | None) -> int:
    if cell.prune_filler != PruneFiller.RANDOM:
        return 0
    device = generator.device if generator is not None else None
    return int(torch.randint(2**62, (), generator=generator, device=device))
