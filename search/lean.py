"""Layers with masked weights that keep the stored weight for backward, not its masked copy."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hwcost.search.swap import user_forward
from hwcost.search.weights import WeightMask

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d

#: Only where a layer's input is at most so many times as large as its weight is the product of
#: weight and mask worth dropping; elsewhere the plain product takes less time.
LARGE = 32

#: The forwards that ``LeanForward`` can stand for; a user's own runs as it is.
FORWARDS = {nn.Conv1d.forward, nn.Conv2d.forward, nn.Conv3d.forward, nn.Linear.forward}


def is_lean(module: nn.Module) -> bool:
    """Whether ``LeanForward`` may run in place of the module's own forward."""
    if not isinstance(module, Conv | nn.Linear) or user_forward(module) not in FORWARDS:
        return False
    own = [name for name in ("_conv_forward",) if name in vars(type(module))]
    return not own and not (isinstance(module, Conv) and isinstance(module.padding, str))


class LeanForward:
    """Forward of a convolution or linear layer whose weight has a mask.

    Where autograd would keep the product of weight and mask, a copy of the weight, this keeps the
    two factors and multiplies again on the way back.

    Args:
        transform: what makes the masked weight.
    """

    def __init__(self, transform: WeightMask) -> None:
        self.transform = transform

    def __call__(self, module: nn.Module, x: Tensor) -> Tensor:
        """Return what the module computes."""
        stored, bias = module._parameters["weight"], module._parameters["bias"]
        if stored is None or not self._is_worth_it(stored, x):
            out: Tensor = user_forward(module)(module, x)
            return out
        mask = self.transform.mask(stored)
        if isinstance(module, nn.Linear):
            out = _Linear.apply(x, stored, mask, bias)  # type: ignore[no-untyped-call]
        else:
            out = _convolved(module, x, stored, mask, bias)
        return out

    def _is_worth_it(self, stored: Tensor, x: Tensor) -> bool:
        if not torch.is_grad_enabled() or torch.is_autocast_enabled(x.device.type):
            return False
        return x.numel() <= LARGE * stored.numel()


def _convolved(module: Any, x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None) -> Tensor:
    rank = weight.dim() - 2
    padding = module.padding
    if module.padding_mode != "zeros":
        x = F.pad(x, module._reversed_padding_repeated_twice, mode=module.padding_mode)
        padding = (0,) * rank
    single = x.dim() == rank + 1
    x = x.unsqueeze(0) if single else x
    how = module.stride, padding, module.dilation, module.groups
    out: Tensor = _Conv.apply(x, weight, mask, bias, how)  # type: ignore[no-untyped-call]
    return out.squeeze(0) if single else out


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None, how: tuple[Any, ...]
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mask)
        ctx.how, ctx.bias = how, None if bias is None else bias.shape
        stride, padding, dilation, groups = how
        none = (0,) * len(stride)
        return torch.convolution(
            x, weight * mask, bias, stride, padding, dilation, False, none, groups
        )

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mask = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.how
        wants_x, wants_weight, wants_mask, wants_bias, _ = ctx.needs_input_grad
        masked = weight * mask
        none = (0,) * len(stride)
        through, seen, bias = torch.ops.aten.convolution_backward.default(
            *(grad, x, masked, ctx.bias, stride, padding, dilation, False, none, groups),
            (wants_x, wants_weight or wants_mask, wants_bias),
        )
        return through, *_factors(seen, weight, mask, wants_weight, wants_mask), bias, None


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight, mask)
        return F.linear(x, weight * mask, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mask = ctx.saved_tensors
        wants_x, wants_weight, wants_mask, wants_bias = ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1])
        through = grad @ (weight * mask) if wants_x else None
        seen = None
        if wants_weight or wants_mask:
            seen = rows.t() @ x.reshape(-1, x.shape[-1])
        bias = rows.sum(0) if wants_bias else None
        return through, *_factors(seen, weight, mask, wants_weight, wants_mask), bias


def _factors(
    seen: Tensor | None, weight: Tensor, mask: Tensor, wants_weight: bool, wants_mask: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of a weight and its mask from that of their product."""
    if seen is None:
        return None, None
    repeated = [i for i, size in enumerate(mask.shape) if size == 1 and weight.shape[i] > 1]
    of_mask = None
    if wants_mask:
        product = seen * weight
        of_mask = product.sum(repeated, keepdim=True) if repeated else product
    return seen * mask if wants_weight else None, of_mask
