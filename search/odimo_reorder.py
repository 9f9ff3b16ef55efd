"""Channels of an exported network in an order in which those of one engine stand together.

Channels that stand or fall together move together: a class takes the place of another of its
axis, in every parameter and buffer in which the axis occurs. Nothing is computed otherwise.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from hwcost.recorder_values import without_compiler
from hwcost.search.channels import Axis, Channels
from hwcost.search.options import Option

if TYPE_CHECKING:
    from hwcost.search.odimo_method import ODiMOMethod


@dataclass(frozen=True, eq=False)
class Reordering:
    """An order of a network's channels.

    Attributes:
        channels: of the network before anything was removed.
        alive: which classes are still there, bool, shape ``(n_classes,)``.
        order: the class that takes each class's place, int64, shape ``(n_classes,)``.
    """

    channels: Channels
    alive: Tensor
    order: Tensor

    def index(self, name: str, dim: int, size: int) -> Tensor:
        """Return which entry of a parameter's dimension stands at each place, int64.

        Args:
            name: of the parameter or buffer, without its dead channels.
            size: of the dimension.
        """
        found = torch.arange(size)
        for cut in self.channels.cuts.get(name, ()):
            if cut.dim == dim:
                found = found[self._places(cut.classes)]
        return found

    def apply(self, model: nn.Module) -> None:
        """Reorder the parameters and buffers of a network without its dead channels, in place."""
        for name, tensor in _named(model):
            for cut in self.channels.cuts.get(name, ()):
                index = self._places(cut.classes)
                if not torch.equal(index, torch.arange(len(index))):
                    tensor.data = _picked(tensor.data, cut.dim, index)

    def _places(self, classes: Tensor) -> Tensor:
        """Return where the new entry of each place stood, for a line of classes.

        The k-th entry of a class takes the place of the k-th of the other.
        """
        alive = torch.cat([self.alive, torch.ones(1, dtype=torch.bool)])
        kept = classes[alive[classes]]
        order = torch.cat([self.order, torch.full((1,), -1)])
        wanted, held = order[kept].argsort(stable=True), kept.argsort(stable=True)
        index = torch.empty_like(wanted)
        index[wanted] = held
        return index


def _named(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        yield without_compiler(name), tensor


def _picked(data: Tensor, dim: int, index: Tensor) -> Tensor:
    picked = data.index_select(dim, index.to(data.device))
    if data.dim() == 4 and data.is_contiguous(memory_format=torch.channels_last):
        return picked.contiguous(memory_format=torch.channels_last)
    return picked


def reordering(
    method: "ODiMOMethod", channels: Channels, alive: Tensor, chosen: Sequence[Sequence[Option]]
) -> Reordering:
    """Return the order in which channels stand by their engines.

    Where several layers make the same channels, the first one's engines come first; channels
    that it gives to one engine stand by the second one's, and so on. What follows a layer through
    a depthwise convolution comes last.

    Args:
        chosen: by layer, the option of each output channel.
    """
    order = torch.arange(channels.n_classes)
    keys = _keys(method, channels, chosen)
    alike = _alike(channels)
    for axis in channels.axes:
        groups: dict[int, list[int]] = {}
        for cls in range(axis.start, axis.start + axis.size):
            if alive[cls]:
                groups.setdefault(alike[cls], []).append(cls)
        for group in groups.values():
            order[group] = torch.tensor(sorted(group, key=keys[axis].__getitem__))
    return Reordering(channels, alive, order)


def _alike(channels: Channels) -> list[int]:
    """Return a number for each class, equal where classes can change places.

    They can where they occur equally often everywhere.
    """
    columns = [
        torch.bincount(cut.classes[cut.classes >= 0], minlength=channels.n_classes)
        for cuts in channels.cuts.values()
        for cut in cuts
    ]
    if not columns:
        return []
    numbers: list[int] = torch.unique(torch.stack(columns, 1), dim=0, return_inverse=True)[
        1
    ].tolist()
    return numbers


def _keys(
    method: "ODiMOMethod", channels: Channels, chosen: Sequence[Sequence[Option]]
) -> dict[Axis, dict[int, tuple[int, ...]]]:
    """Return by axis what each of its classes is sorted by."""
    rank = {name: place for place, name in enumerate(method.platform.engines)}
    numbers = {weight.name: number for number, weight in enumerate(method.layers)}
    found: dict[Axis, dict[int, tuple[int, ...]]] = {}
    for axis in channels.axes:
        span = range(axis.start, axis.start + axis.size)
        makers = [numbers[name] for name in axis.producers if name in numbers]
        lines = [(number, method.layers[number].classes) for number in makers]
        lines += [
            (number, line)
            for number in method.forms.kernels
            if (line := method.forms.read_classes(channels, number)) is not None
        ]
        columns = [_engines(line, [rank[o.engine] for o in chosen[n]]) for n, line in lines]
        found[axis] = {cls: tuple(column.get(cls, -1) for column in columns) for cls in span}
    return found


def _engines(classes: Tensor, engines: Sequence[int]) -> dict[int, int]:
    """Return the engine of each class: that of its first channel."""
    found: dict[int, int] = {}
    for cls, engine in zip(classes.tolist(), engines, strict=True):
        found.setdefault(cls, engine)
    return found
