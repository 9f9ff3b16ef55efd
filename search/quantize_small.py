"""Rounding small weights to several grids: all choices in one operation, for calls cost most."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hwcost.search.quantize_grids import Grid, Rounding
from hwcost.search.quantize_pieces import laid_like, rows, unrowed

#: Up to so many elements, times choices.
SMALL = 2**17

#: Relative distance beyond a grid's end that counts as on it.
_SLACK = 1 + 2.0**-21


def is_small(w: Tensor, scales: Tensor, how: Rounding) -> bool:
    """Whether ``Small`` may round these weights: on the CPU, with scales that do not learn."""
    sizes = w.numel() * len(how.grids) <= SMALL and scales.shape[0] > 0 < w.numel()
    plain = w.dtype in (torch.float32, torch.float64) and w.device.type == "cpu"
    return sizes and plain and not how.learns_inside and not scales.requires_grad


def _low(grid: Grid) -> int:
    return grid.low


def _high(grid: Grid) -> int:
    return grid.high


class Small(torch.autograd.Function):
    """Add what each grid makes of ``w``, by shares; keeps what each makes.

    Scales and shares have shape ``(channels, choices)``.
    """

    @staticmethod
    def forward(ctx: Any, w: Tensor, scales: Tensor, shares: Tensor, how: Rounding) -> Tensor:
        values = rows(w, how.axis)
        steps = scales.to(w.dtype).unsqueeze(2)
        low, high = (
            w.new_tensor([end(grid) for grid in how.grids]).unsqueeze(1) for end in (_low, _high)
        )
        # (channels, choices, size)
        parts = (values.unsqueeze(1) / steps).round_().clamp_(low, high).mul_(steps)
        ctx.type = shares.dtype
        shares = shares.to(w.dtype)
        ctx.save_for_backward(w, parts, shares, steps * high * _SLACK)
        ctx.how = how
        # No product of matrices: under autocast it would have fewer bits.
        return unrowed((parts * shares.unsqueeze(2)).sum(1), w, how.axis)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        w, parts, shares, ends = ctx.saved_tensors
        how = ctx.how
        g = rows(laid_like(grad.to(w.dtype), w), how.axis)
        of_shares = None
        if ctx.needs_input_grad[2]:
            of_shares = torch.bmm(parts, g.unsqueeze(2)).squeeze(2).to(ctx.type)
        if how.clips:
            inside = (rows(w, how.axis).abs().unsqueeze(1) <= ends).to(w.dtype)
            of_w = torch.bmm(shares.unsqueeze(1), inside).squeeze(1).mul_(g)
        else:
            of_w = g * shares.sum(1, keepdim=True)
        return unrowed(of_w, w, how.axis), None, of_shares, None
