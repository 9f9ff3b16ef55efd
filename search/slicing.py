"""Remove channels from a network: its parameters, its buffers, and what its modules say of them."""

import torch
from torch import Tensor, nn

from hwcost.recorder_values import without_compiler
from hwcost.search.channels_values import Channels, Cut
from hwcost.search.slicing_attributes import set_attributes


def slice_channels(model: nn.Module, channels: Channels, alive: Tensor) -> None:
    """Remove the classes of channels that are not alive, in place.

    Parameters keep their identity, and lose their gradients where they are cut.

    Args:
        model: of the user's own classes, on any device, meta included.
        channels: what ``find_channels`` said about it, or about what it is a copy of.
        alive: bool, shape ``(n_classes,)``.
    """
    keep = torch.cat([alive.cpu().bool(), torch.ones(1, dtype=torch.bool)])  # -1 is the last
    for name, tensor in _named(model).items():
        for cut in channels.cuts.get(name, ()):
            tensor.data = _kept(tensor.data, cut, keep)
            tensor.grad = None
    set_attributes(model, channels, keep)


def _named(model: nn.Module) -> dict[str, Tensor]:
    named: dict[str, Tensor] = {without_compiler(n): p for n, p in model.named_parameters()}
    return named | {without_compiler(n): b for n, b in model.named_buffers()}


def _kept(data: Tensor, cut: Cut, keep: Tensor) -> Tensor:
    index = keep[cut.classes].nonzero().flatten()
    if len(index) == data.shape[cut.dim]:
        return data
    kept = data.index_select(cut.dim, index.to(data.device))
    if data.dim() == 4 and data.is_contiguous(memory_format=torch.channels_last):
        return kept.contiguous(memory_format=torch.channels_last)
    return kept
