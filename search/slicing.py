"""Remove channels from a network: its parameters, its buffers, and what its modules say of them."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from hwcost.recorder_values import without_compiler
from hwcost.search.channels_values import Channels, Cut
from hwcost.search.slicing_attributes import set_attributes

#: Layouts that a tensor keeps, by its rank.
_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


def slice_channels(model: nn.Module, channels: Channels, alive: Tensor) -> None:
    """Remove the classes of channels that are not alive, in place.

    Parameters keep their identity, and lose their gradients where they are cut.

    Args:
        model: of the user's own classes, on any device, meta included.
        channels: what ``find_channels`` said about it, or about what it is a copy of.
        alive: bool, shape ``(n_classes,)``.
    """
    keep = kept_or_not(alive)
    for name, tensor in named_tensors(model).items():
        for cut in channels.cuts.get(name, ()):
            tensor.data = without(tensor.data, [cut], keep)
            tensor.grad = None
    set_attributes(model, channels, keep)


def kept_or_not(alive: Tensor) -> Tensor:
    """Return ``alive`` on the CPU with a last entry for class -1, which stays always."""
    return torch.cat([alive.cpu().bool(), torch.ones(1, dtype=torch.bool)])


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name; one that is shared has its first name."""
    named: dict[str, Tensor] = {without_compiler(n): p for n, p in model.named_parameters()}
    return named | {without_compiler(n): b for n, b in model.named_buffers()}


def without(data: Tensor, cuts: Iterable[Cut], keep: Tensor) -> Tensor:
    """Return a tensor without dead channels, itself if it has none.

    Args:
        data: what to cut.
        cuts: where.
        keep: see ``kept_or_not``.
    """
    layout = _LAYOUTS.get(data.dim())
    for cut in cuts:
        index = keep[cut.classes].nonzero().flatten()
        if len(index) < data.shape[cut.dim]:
            data = _selected(data, cut.dim, index.to(data.device), layout)
    return data


def _selected(data: Tensor, dim: int, index: Tensor, layout: torch.memory_format | None) -> Tensor:
    kept = data.index_select(dim, index)
    if layout is not None and data.is_contiguous(memory_format=layout):
        return kept.contiguous(memory_format=layout)
    return kept
