"""Rounding to one grid with one scale."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hwcost.search.quantize_grids import Rounding
from hwcost.search.quantize_pieces import Scratch, cut, dense, flat, laid_like, wide

#: A clipped element leaves ``CLIPPED`` with its sign for backward, any other its rounding error in
#: ``PARTS`` of a step, 120 at most, or 0 where errors do not count.
CLIPPED, PARTS, LIMIT = 127, 240, 123.5

_inside = torch.ops.aten.hardtanh_backward.grad_input
_above = torch.ops.aten.threshold_backward.grad_input


class Single(torch.autograd.Function):
    """Round with a scale ``(1,)``; keeps a byte for each element."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, how: Rounding) -> Tensor:
        source = dense(x)
        out = source if how.inplace else torch.empty_like(source)
        kept = torch.empty_like(source, dtype=torch.int8) if how.keeps else None
        _round(flat(source), flat(out), scale, how, None if kept is None else flat(kept))
        ctx.save_for_backward(kept, scale)
        ctx.how = how
        if not how.inplace:
            return out
        ctx.mark_dirty(x)
        return x if source is x else x.copy_(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        kept, scale = ctx.saved_tensors
        grad = laid_like(grad, kept)
        of_x = torch.empty_like(grad)
        learns = ctx.needs_input_grad[1]
        of_scale = _gradients(flat(grad), flat(kept), flat(of_x), ctx.how, learns)
        return of_x, of_scale.to(scale.dtype).view_as(scale) if learns else None, None


def _round(x: Tensor, out: Tensor, scale: Tensor, how: Rounding, kept: Tensor | None) -> None:
    grid, step = how.grids[0], scale.to(x.dtype)
    room = Scratch(1 + how.learns_inside, x.dtype, x.device)
    for values, result, *marks in cut(x, out, *([] if kept is None else [kept])):
        steps, *codes = room.like(values)
        torch.div(values, step, out=steps)
        torch.clamp(steps, grid.low, grid.high, out=result)
        if not marks:
            result.round_().mul_(step)
            continue
        steps.sub_(result).sign_()
        if how.learns_inside:
            torch.round(result, out=codes[0])
            steps.mul_(CLIPPED).add_(result.sub_(codes[0]), alpha=-PARTS).round_()
            torch.mul(codes[0], step, out=result)
        else:
            result.round_().mul_(step)
        marks[0].copy_(steps)


def _gradients(grad: Tensor, kept: Tensor, of_x: Tensor, how: Rounding, learns: bool) -> Tensor:
    """Write the gradient of x, and return that of the scale if it learns, 0-d."""
    grid, dtype = how.grids[0], wide(grad.dtype)
    limit = LIMIT if how.learns_inside else 0.5
    halves, signed = grad.dtype != dtype, grid.low < 0
    room = Scratch(1 + signed + 2 * halves, dtype, grad.device)
    inner, above, below = [], [], []
    for given, marks, passed in cut(grad, kept, of_x):
        code, *spare = room.like(given)
        code.copy_(marks)
        g = spare.pop().copy_(given) if halves else given
        inside = spare.pop() if halves else passed
        _inside(g, code, -limit, limit, grad_input=inside)
        if halves:
            passed.copy_(inside)
        if not learns:
            continue
        if how.learns_inside:
            inner.append(torch.dot(inside, code))
        above.append(_above(g, code, limit, grad_input=spare[0] if signed else code).sum())
        if signed:
            below.append(_above(g, code.neg_(), limit, grad_input=code).sum())
    parts = (inner, 1 / PARTS), (above, grid.high), (below, grid.low)
    sums = [torch.stack(s).sum(dtype=torch.float64) * w for s, w in parts if s]
    return sum(sums, start=torch.zeros((), dtype=torch.float64, device=grad.device))
