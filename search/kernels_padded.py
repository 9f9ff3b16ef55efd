"""Convolutions with a padding of their own on each side; a negative one crops."""

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import pad

from hwcost.errors import SearchError

#: In each dimension the samples added before and after; cropped where negative.
Pads = tuple[tuple[int, int], ...]

#: Convolutions whose kernels may shrink.
Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d


class _Padded(nn.Module):
    """Pads or crops its input, then convolves without padding."""

    pads: Pads

    def __init__(self, *args: Any, pads: Pads, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pads = tuple((int(left), int(right)) for left, right in pads)
        if any(self.padding) or self.padding_mode != "zeros":  # type: ignore[arg-type]
            raise SearchError(f"{type(self).__name__} takes pads=..., no padding= or padding_mode=")
        if len(self.pads) != len(self.kernel_size):  # type: ignore[arg-type]
            raise SearchError(f"pads are {self.pads}; expected a pair for each dimension")

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution of the padded input."""
        out: Tensor = super().forward(adjusted(input, self.pads))
        return out

    def extra_repr(self) -> str:
        """Return what a convolution says, and the pads."""
        return f"{super().extra_repr()}, pads={self.pads}"


class PaddedConv1d(_Padded, nn.Conv1d):
    """``nn.Conv1d`` with ``pads=((left, right),)`` in place of a padding; negative ones crop.

    Raises:
        SearchError: a padding is given too, or the pads do not fit the dimensions.
    """


class PaddedConv2d(_Padded, nn.Conv2d):
    """``nn.Conv2d`` with pads ``((top, bottom), (left, right))``."""


class PaddedConv3d(_Padded, nn.Conv3d):
    """``nn.Conv3d`` with pads ``((front, back), (top, bottom), (left, right))``."""


#: Convolution -> the one that pads each side as told.
PADDED: dict[type[Conv], type[_Padded]] = {
    nn.Conv1d: PaddedConv1d,
    nn.Conv2d: PaddedConv2d,
    nn.Conv3d: PaddedConv3d,
}


def adjusted(x: Tensor, pads: Pads) -> Tensor:
    """Return ``x`` with zeros added to its last dimensions, and cropped where pads are negative.

    Cropping alone gives a view. Zeros come first: a crop may reach into them.
    """
    if any(max(pair) > 0 for pair in pads):
        x = pad(x, [max(side, 0) for pair in reversed(pads) for side in pair])
    if any(min(pair) < 0 for pair in pads):
        crops = [slice(max(-left, 0), min(right, 0) or None) for left, right in pads]
        x = x[(..., *crops)]
    return x


def pads_of(conv: Conv) -> Pads:
    """Return the samples that a convolution adds on each side, in each dimension."""
    if isinstance(conv, _Padded):
        return conv.pads
    if conv.padding == "valid":
        return ((0, 0),) * len(conv.kernel_size)
    if conv.padding == "same":
        totals = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return tuple((int(side), int(side)) for side in conv.padding)
