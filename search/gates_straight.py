"""The tricks on gradients that searches play; nowhere else may one be."""

from typing import Any

import torch
from torch import Tensor


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """Return ``hard``, exactly, with the gradient of ``soft``; in the type of ``soft``.

    Args:
        hard: any type, without a gradient; same shape as ``soft``.
        soft: finite.
    """
    # The difference is 0, not almost 0, so that adding it changes nothing.
    return hard.to(soft.dtype) + (soft - soft.detach())


def unit_weight(probability: Tensor) -> Tensor:
    """Return 1 with the gradient of the logarithm of ``probability``.

    The weight of a branch that was drawn with this probability: over many draws, its gradient is
    that of a mix of all branches. The gradient is bounded however small the probability.
    """
    return probability / probability.detach()


def share(parameter: Tensor) -> Tensor:
    """Return ``min(|parameter|, 1)``, with its gradient, in one node."""
    shares: Tensor = _Share.apply(parameter)
    return shares


def straight_absolute(hard: Tensor, parameter: Tensor) -> Tensor:
    """Return ``straight_through(hard, |parameter|)`` in one node."""
    values: Tensor = _Absolute.apply(parameter, hard)
    return values


class _Share(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parameter: Tensor) -> Tensor:
        ctx.save_for_backward(parameter)
        return parameter.abs().clamp_(max=1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (parameter,) = ctx.saved_tensors
        return grad * parameter.sgn() * (parameter.abs() <= 1)


class _Absolute(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parameter: Tensor, hard: Tensor) -> Tensor:
        ctx.save_for_backward(parameter)
        # The difference is 0 but for NaN, which stays to be seen.
        return (parameter - parameter).add_(hard)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (parameter,) = ctx.saved_tensors
        return grad * parameter.sgn(), None
