"""The classes of channels that are left after some were removed."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from hwcost.search.channels_values import Axis, Channels, Cut, Field, Norm


def remaining(channels: Channels, alive: Tensor) -> Channels:
    """Return what is known of the channels of a network without the classes that are not alive.

    Args:
        channels: of the network before.
        alive: bool, shape ``(n_classes,)``.
    """
    keep = torch.cat([alive, torch.ones(1, dtype=torch.bool)])
    number = torch.cat([alive.cumsum(0) - 1, torch.tensor([-1])])

    def left(classes: Tensor) -> Tensor:
        return number[classes[keep[classes]]]

    def by_path(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {path: left(classes) for path, classes in found.items()}

    def field(one: Field) -> Field:
        dim = max(range(one.classes.dim()), key=lambda d: one.classes.shape[d])
        shape = [-1 if d == dim else 1 for d in range(one.classes.dim())]
        return Field(left(one.classes.reshape(-1)).view(shape))

    cuts = {
        name: tuple(Cut(cut.dim, left(cut.classes), cut.role) for cut in own)
        for name, own in channels.cuts.items()
    }
    return replace(
        channels,
        axes=_axes(channels, alive),
        cuts=cuts,
        fields={ref: tuple(map(field, own)) for ref, own in channels.fields.items()},
        norms={path: Norm(left(n.classes), n.groups) for path, n in channels.norms.items()},
        inputs=by_path(channels.inputs),
        features=by_path(channels.features),
        n_classes=int(alive.sum()),
    )


def _axes(channels: Channels, alive: Tensor) -> tuple[Axis, ...]:
    axes: list[Axis] = []
    start = 0
    for axis in channels.axes:
        size = int(alive[axis.start : axis.start + axis.size].sum())
        axes.append(replace(axis, start=start, size=size))
        start += size
    return tuple(axes)
