"""Geometry of convolution kernels that lose taps, for any number of dimensions.

The taps of a kernel that stay are a bool tensor of the kernel's shape. They must form a regular
grid: some first tap, a step and a count in each dimension.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from hwcost.errors import SearchError
from hwcost.search.kernels_padded import PADDED, Conv, Pads, pads_of

#: Methods that decide what a convolution computes.
_METHODS = ("forward", "_conv_forward")


def taps_1d(receptive_field: Tensor, dilation: Tensor) -> Tensor:
    """Return the taps that stay in a kernel of one dimension, bool, shape ``(taps,)``.

    Args:
        receptive_field, dilation: which distances from the newest (last) tap stay, bool, shape
            ``(taps,)``.
    """
    return (receptive_field & dilation).flip(0)


def rings(kernel_size: Sequence[int]) -> Tensor:
    """Return the distance of each tap from the centre, int64, of the kernel's shape.

    It is the largest over the dimensions: taps at a distance of at most 1 are a 3x3 kernel.

    Raises:
        SearchError: a size is even, so that there is no centre.
    """
    if not all(size % 2 for size in kernel_size):
        raise SearchError(f"a kernel of {_times(kernel_size)} has no centre; sizes must be odd")
    distances = torch.zeros(*kernel_size, dtype=torch.int64)
    for dim, size in enumerate(kernel_size):
        away = (torch.arange(size) - size // 2).abs()
        shape = [-1 if other == dim else 1 for other in range(len(kernel_size))]
        distances = distances.maximum(away.view(shape))
    return distances


@dataclass(frozen=True)
class Geometry:
    """A smaller kernel that reads the same inputs as the taps of a larger one that stay.

    Attributes:
        taps: which taps of the larger one they are, in each dimension.
        dilation: of the smaller kernel.
        crop: how many input samples the smaller kernel reaches less far, before and after, in
            each dimension.
    """

    taps: tuple[range, ...]
    dilation: tuple[int, ...]
    crop: Pads

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """The sizes of the smaller kernel."""
        return tuple(map(len, self.taps))

    def kept(self, weight: Tensor) -> Tensor:
        """Return a copy of a weight of shape ``(cout, cin, *kernel)`` with the taps that stay."""
        inside = [slice(taps.start, taps.stop, taps.step) for taps in self.taps]
        return weight[(slice(None), slice(None), *inside)].clone(
            memory_format=torch.contiguous_format
        )

    def pads(self, before: Pads) -> Pads:
        """Return the padding, negative where input is cropped, given that of the larger kernel."""
        pairs = zip(before, self.crop, strict=True)
        return tuple((left - start, right - end) for (left, right), (start, end) in pairs)


def shrink(taps: Tensor, dilation: Sequence[int]) -> Geometry:
    """Return the smallest kernel that has exactly the taps that stay.

    Args:
        taps: bool, of the kernel's shape.
        dilation: of the kernel so far.

    Raises:
        SearchError: no tap stays, or they are no regular grid.
    """
    alive = taps.nonzero()
    if not len(alive):
        raise SearchError("no tap of a kernel stays")
    grid = tuple(_range(sorted(set(column.tolist()))) for column in alive.unbind(1))
    if [tuple(tap) for tap in alive.tolist()] != list(product(*grid)):
        raise SearchError(f"the taps {alive.tolist()} of a kernel are no regular grid")
    return Geometry(
        taps=grid,
        # The dilation of a single tap means nothing.
        dilation=tuple(
            t.step * d if len(t) > 1 else 1 for t, d in zip(grid, dilation, strict=True)
        ),
        crop=tuple(
            (t[0] * d, (size - 1 - t[-1]) * d)
            for t, d, size in zip(grid, dilation, taps.shape, strict=True)
        ),
    )


def convert(conv: nn.Module, taps: Tensor) -> None:
    """Shrink a convolution's kernel to the taps that stay, as if the others' weights were 0.

    Weight, kernel size, dilation and padding change. Where the padding becomes unequal on two
    sides, or negative, the class becomes ``PaddedConv1d``, ``PaddedConv2d`` or ``PaddedConv3d``.

    Args:
        taps: bool, of the kernel's shape.

    Raises:
        SearchError: as ``why_not`` says, or as for ``shrink``.
    """
    reason = why_not(conv)
    if reason:
        raise SearchError(f"the kernel of a convolution cannot shrink: {reason}")
    assert isinstance(conv, Conv)
    if tuple(taps.shape) != tuple(conv.kernel_size):
        found, due = _times(taps.shape), _times(conv.kernel_size)
        raise SearchError(f"taps of shape {found} for a kernel of {due}")
    if bool(taps.all()):
        return
    geometry = shrink(taps.cpu(), conv.dilation)
    pads = geometry.pads(pads_of(conv))
    conv.weight.data = geometry.kept(conv.weight.data)
    conv.weight.grad = None
    conv.kernel_size, conv.dilation = geometry.kernel_size, geometry.dilation
    _set_pads(conv, pads)


def why_not(conv: nn.Module) -> str:
    """Return why a module's kernel cannot shrink, "" if it can."""
    if not isinstance(conv, Conv):
        return f"{type(conv).__name__} is no convolution of one to three dimensions"
    if conv.padding_mode != "zeros":
        return f"it pads by {conv.padding_mode!r}, not with zeros"
    if "weight" not in conv._parameters:
        return "its weight is computed from other parameters"
    plain = _plain(conv)
    for name in _METHODS:
        if getattr(type(conv), name) not in (getattr(plain, name), getattr(PADDED[plain], name)):
            return f"{type(conv).__name__} has a {name} of its own"
    return ""


def _set_pads(conv: Conv, pads: Pads) -> None:
    plain = _plain(conv)
    if all(left == right >= 0 for left, right in pads):
        conv.padding = tuple(left for left, _ in pads)
        if vars(conv).pop("pads", None) is not None:
            conv.__class__ = plain
        return
    conv.padding = (0,) * len(pads)
    vars(conv)["pads"] = pads
    conv.__class__ = PADDED[plain]  # type: ignore[assignment]


def _plain(conv: Conv) -> type[Conv]:
    return next(cls for cls in PADDED if isinstance(conv, cls))


def _range(places: Sequence[int]) -> range:
    """Return the range of some places, as far as they have equal distances."""
    step = places[1] - places[0] if len(places) > 1 else 1
    return range(places[0], places[-1] + 1, step)


def _times(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))
