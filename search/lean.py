"""Layers with masked weights that keep the stored weight for backward, not its masked copy."""

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hwcost.search.swap import user_forward
from hwcost.search.weights import WeightMask

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d

#: The forwards that ``LeanForward`` can stand for; a user's own runs as it is.
FORWARDS = {nn.Conv1d.forward, nn.Conv2d.forward, nn.Conv3d.forward, nn.Linear.forward}

#: How many times as large as its weight a layer's input is where a copy of the weight is nothing.
LARGE = 32


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

    def __call__(self, module: Any, x: Tensor) -> Tensor:
        """Return what the module computes."""
        stored, bias = module._parameters["weight"], module._parameters["bias"]
        if (
            stored is None
            or not torch.is_grad_enabled()
            or x.numel() > LARGE * stored.numel()
            or torch.is_autocast_enabled(x.device.type)
        ):
            out: Tensor = user_forward(module)(module, x)
            return out
        mask = self.transform.mask(stored)
        if isinstance(module, nn.Linear):
            out = _Linear.apply(x, stored, mask, bias)
        else:
            out = module._conv_forward(x, stored * mask, bias)
            _keep_factors(out, stored, mask)
        return out


def _keep_factors(out: Tensor, weight: Tensor, mask: Tensor) -> None:
    """Let the convolution that made ``out`` keep factors in place of its weight."""
    saved = getattr(out.grad_fn, "_raw_saved_weight", None)
    if saved is not None:
        product = _Product(weight, mask)
        # Refused where the user has hooks of this kind: they then take care of the product.
        with suppress(RuntimeError):
            saved.register_hooks(product.drop, product.again)


class _Product:
    """A product that is dropped and made again."""

    def __init__(self, weight: Tensor, mask: Tensor) -> None:
        self.weight, self.mask = weight.detach(), mask.detach()
        self.version = weight._version

    def drop(self, product: Tensor) -> None:
        """Forget the product."""

    def again(self, dropped: None) -> Tensor:
        """Return the product.

        Raises:
            RuntimeError: the weight is not what it was.
        """
        if self.weight._version != self.version:
            raise RuntimeError("a weight was changed in place between forward and backward")
        return self.weight * self.mask


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
