"""Normalisations over channels whose statistics leave dead channels out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from hwcost.search.swap import user_forward
from hwcost.search.weights import Mask


class MaskedNorm:
    """Forward of a module whose normalisation measures alive channels only.

    The module's own code runs; within it the functions of ``NORMS`` are replaced, so that a
    subclass that moves the channels to the end first, as some do, works as it is.

    Args:
        mask: over the normalised features, flattened; for groups, over the channels.
    """

    def __init__(self, mask: Mask) -> None:
        self.mask = mask

    def __call__(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        own = user_forward(module)
        with _Replaced(self.mask):
            return own(module, *args, **kwargs)


class _Replaced(TorchFunctionMode):
    def __init__(self, mask: Mask) -> None:
        super().__init__()
        self.mask = mask

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        norm = NORMS.get(func)
        if norm is None:
            return func(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunction():
            return norm(self.mask(args[0]), *args, **(kwargs or {}))


def _layer_norm(
    mask: Tensor,
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    flat = x.flatten(-len(normalized_shape))
    count = mask.sum()
    centred = flat - (flat @ mask / count).unsqueeze(-1)
    variance = (centred.square() @ mask / count).unsqueeze(-1)
    out = (centred * (variance + eps).rsqrt()).view(x.shape)
    return _affine(out, weight, bias)


def _rms_norm(
    mask: Tensor,
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    flat = x.flatten(-len(normalized_shape))
    square = (flat.square() @ mask / mask.sum()).unsqueeze(-1)
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    return _affine((flat * (square + eps).rsqrt()).view(x.shape), weight, None)


def _group_norm(
    mask: Tensor,
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    batch, channels = x.shape[:2]
    flat = x.reshape(batch, num_groups, channels // num_groups, -1)
    mask = mask.view(1, num_groups, channels // num_groups, 1)
    count = mask.sum(2, keepdim=True) * flat.shape[-1]
    centred = flat - (flat * mask).sum((2, 3), keepdim=True) / count
    variance = (centred.square() * mask).sum((2, 3), keepdim=True) / count
    out = (centred * (variance + eps).rsqrt()).view(x.shape)
    shape = (-1,) + (1,) * (x.dim() - 2)
    weight, bias = (t if t is None else t.view(shape) for t in (weight, bias))
    return _affine(out, weight, bias)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


#: Function of torch -> the same over alive channels; the mask comes first.
NORMS: dict[Any, Callable[..., Tensor]] = {
    F.layer_norm: _layer_norm,
    torch.layer_norm: _layer_norm,
    F.rms_norm: _rms_norm,
    torch.rms_norm: _rms_norm,
    F.group_norm: _group_norm,
    torch.group_norm: _group_norm,
}
