"""Rounding to several grids at once, or with a scale for each channel."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hwcost.search.quantize_grids import Grid, Rounding
from hwcost.search.quantize_pieces import (
    Scratch,
    cut,
    dots,
    laid_like,
    rows,
    unrowed,
    wide,
)

_inside = torch.ops.aten.hardtanh_backward.grad_input
_above = torch.ops.aten.threshold_backward.grad_input


class Mixed(torch.autograd.Function):
    """Add what each grid makes of ``x``, by shares; keeps ``x``, which is dense.

    Scales and shares have shape ``(rows, choices)``: a row is a channel, or everything.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scales: Tensor, shares: Tensor | None, how: Rounding
    ) -> Tensor:
        ctx.save_for_backward(x, scales, shares)
        ctx.how = how
        values = rows(x, how.axis)
        if how.axis is None:
            whole = torch.empty_like(x)  # no view, which code that writes in place could not change
            _mix(values, rows(whole, None), scales, shares, how)
            return whole
        out = torch.empty_like(values)
        _mix(values, out, scales, shares, how)
        return unrowed(out, x, how.axis)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scales, shares = ctx.saved_tensors
        axis = ctx.how.axis
        work = _Backward(ctx.how, scales, shares, ctx.needs_input_grad, wide(x.dtype))
        of_x = work.run(rows(x, axis), rows(laid_like(grad, x), axis))
        return unrowed(of_x, x, axis), work.of_scales(), work.of_shares(), None


def _columns(values: Tensor) -> tuple[Tensor, ...]:
    """Return a column for each choice, shape ``(rows, 1)``."""
    return values.unsqueeze(-1).unbind(1)


def _mix(x: Tensor, out: Tensor, scales: Tensor, shares: Tensor | None, how: Rounding) -> None:
    steps = scales.to(x.dtype)
    weights = steps if shares is None else steps * shares.to(x.dtype)
    room, row = Scratch(1, x.dtype, x.device), 0
    for part, result in cut(x, out):
        at = slice(row, row + len(part))
        columns = zip(how.grids, _columns(steps[at]), _columns(weights[at]), strict=True)
        for choice, (grid, step, weight) in enumerate(columns):
            codes = room.like(part)[0] if choice else result
            torch.div(part, step, out=codes)
            codes.round_().clamp_(grid.low, grid.high).mul_(weight)
            if choice:
                result.add_(codes)
        row += len(part) if len(x) > 1 else 0


class _Backward:
    """The gradients, in type ``dtype``.

    Those of scales and shares are sums of ``(pieces' rows, choices)``: of the gradient's products
    with codes, rounded ones and, where errors count, others.
    """

    def __init__(
        self,
        how: Rounding,
        scales: Tensor,
        shares: Tensor | None,
        needed: tuple[bool, ...],
        dtype: torch.dtype,
    ) -> None:
        self.how, self.scales, self.shares, self.dtype = how, scales, shares, dtype
        self.learns, self.chooses = needed[1], needed[2]
        self.inner = self.learns and how.learns_inside
        self.together = how.clips and not self.inner and _one_clip(how, scales)
        self.sums: tuple[list[Tensor], list[Tensor]] = [], []

    def of_scales(self) -> Tensor | None:
        sums = self._total(self.sums[0]) if self.learns else None
        return sums if sums is None or self.shares is None else sums * self.shares

    def of_shares(self) -> Tensor | None:
        return self._total(self.sums[1]) * self.scales if self.chooses else None

    def _total(self, parts: list[Tensor]) -> Tensor:
        if not parts:
            return torch.zeros_like(self.scales)
        sums = torch.cat(parts) if len(parts) > 1 else parts[0]
        if len(self.scales) == 1:
            sums = sums.sum(0, keepdim=True, dtype=torch.float64)
        return sums.to(self.scales.dtype)

    def run(self, x: Tensor, grad: Tensor) -> Tensor:
        """Return the gradient of x ``(rows, size)``, and keep the others' sums."""
        of_x, row = torch.empty_like(grad), 0
        halves = x.dtype != self.dtype
        room = Scratch(6 if halves else 3, self.dtype, x.device)
        inverse = self.scales.to(x.dtype).to(self.dtype).reciprocal()
        for values, given, result in cut(x, grad, of_x):
            at = slice(row, row + len(values))
            shares = None if self.shares is None else self.shares[at].to(self.dtype)
            spare = room.like(values)
            if halves:
                v, g, out = spare[3].copy_(values), spare[4].copy_(given), spare[5]
                self._piece(v, g, out, inverse[at], shares, spare)
                result.copy_(out)
            else:
                self._piece(values, given, result, inverse[at], shares, spare)
            row += len(values) if len(x) > 1 else 0
        return of_x

    def _piece(
        self,
        x: Tensor,
        g: Tensor,
        out: Tensor,
        inverse: Tensor,
        shares: Tensor | None,
        room: Sequence[Tensor],
    ) -> None:
        codes, inside, spare, steps = *room[:3], _columns(inverse)
        alike = self.together or not self.how.clips
        if alike:
            self._pass_alike(x, g, out, codes, steps[0], shares)
        if alike and not (self.inner or self.chooses):
            return
        weights = (None,) * len(steps) if shares is None else _columns(shares)
        sums: tuple[list[Tensor], list[Tensor]] = [], []
        columns = zip(self.how.grids, steps, weights, strict=True)
        for choice, (grid, step, weight) in enumerate(columns):
            torch.mul(x, step, out=codes)
            passed = g if alike else _inside(g, codes, *_ends(grid), grad_input=inside)
            products = self._products(g, passed, codes, spare, grid)
            for kept, found in zip(sums, products, strict=True):
                kept.extend(found)
            if not alike:
                _add(passed, weight, out, first=choice == 0)
        for kept, found in zip(self.sums, sums, strict=True):
            kept.extend([torch.stack(found, 1)] if found else [])

    def _products(
        self, g: Tensor, passed: Tensor, codes: Tensor, spare: Tensor, grid: Grid
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return what a choice adds to the sums of scales and shares, ``(rows,)`` if needed."""
        of_errors = dots(passed, codes, spare) if self.inner else None
        clipped = self.learns and not self.inner and passed is not g
        if not (self.chooses or self.inner or clipped):
            return [], []
        codes.round_().clamp_(grid.low, grid.high)
        whole = dots(g, codes, spare) if self.chooses or self.inner else None
        of_share = [whole] if self.chooses and whole is not None else []
        if of_errors is not None and whole is not None:
            return [whole - of_errors], of_share
        if clipped:
            # Not the difference of two products: where nothing is clipped it must be 0.
            return [dots(torch.sub(g, passed, out=spare), codes, spare)], of_share
        return [], of_share

    def _pass_alike(
        self, x: Tensor, g: Tensor, out: Tensor, codes: Tensor, step: Tensor, shares: Tensor | None
    ) -> None:
        """Write the gradient of x where all choices clip the same elements, or none."""
        passed, grid = g, self.how.grids[0]
        if self.together:
            torch.mul(x, step, out=codes)
            if self.learns:
                above = _above(g, codes, _ends(grid)[1], grad_input=out).sum(1, keepdim=True)
                self.sums[0].append(above * above.new_tensor([g.high for g in self.how.grids]))
            passed = _inside(g, codes, *_ends(grid), grad_input=out)
        if shares is not None:
            torch.mul(passed, shares.sum(1, keepdim=True), out=out)
        elif passed is not out:
            out.copy_(passed)


def _add(passed: Tensor, weight: Tensor | None, out: Tensor, first: bool) -> None:
    if weight is not None:
        passed = torch.mul(passed, weight, out=out if first else passed)
    if not first:
        out.add_(passed)
    elif passed is not out:
        out.copy_(passed)


def _one_clip(how: Rounding, scales: Tensor) -> bool:
    """Whether all choices clip the same: one range for all, of no negatives; seen on the CPU."""
    if scales.device.type != "cpu" or any(grid.low for grid in how.grids) or len(scales) > 1:
        return False
    ends = [grid.high * step for grid, step in zip(how.grids, scales[0].tolist(), strict=True)]
    return bool(max(ends) - min(ends) <= 2**-20 * max(ends))


def _ends(grid: Grid) -> tuple[float, float]:
    """Return codes outside the grid next to its ends: a product may miss an end by a rounding."""
    return grid.low * (1 + 2**-21) - 2.0**-100, grid.high * (1 + 2**-21)
