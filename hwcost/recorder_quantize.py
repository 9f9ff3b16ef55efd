"""The op that stands where a tensor is rounded to few bits: it has no row in a table."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

#: Its name in a recording.
FAKE_QUANTIZE = "hwcost.fake_quantize"


@torch.library.custom_op("hwcost::fake_quantize", mutates_args=())
def fake_quantize(
    x: Tensor,
    scale: Tensor,
    bits: Sequence[int],
    low: Sequence[int],
    high: Sequence[int],
    axis: int,
    label: str,
    engines: str,
    unit: Tensor | None = None,
    unit_axis: int = 0,
) -> Tensor:
    """Return ``clamp(round(x / scale), low, high) * scale``, a new tensor; halves go to even.

    In a recording it says at how many bits a tensor is stored.

    Args:
        x: weights, a bias or activations.
        scale: what one step is worth, above 0; shape ``(1,)``, or ``(channels,)`` along ``axis``.
        bits: one number, or one for each channel; so are ``low`` and ``high``.
        low: the smallest code.
        high: the largest code.
        axis: the dimension of the channels; of no meaning where there is one number.
        label: a name, for those who look for it in a recording.
        engines: for weights, the engine that computes each channel, joined by commas, or "".
        unit: of a sum of products of codes, what one of its units is worth; then the sum is made
            whole before it is rounded to the scale, as kernels for integers do. Shape ``(1,)``, or
            ``(channels,)`` along ``unit_axis``.
        unit_axis: the dimension of the unit's channels.
    """
    if unit is not None:
        return _requantized(x, scale, unit, unit_axis, low[0], high[0])
    # Float32 knows no odd codes above 2**24.
    wide = x.double() if max(high) > 2**24 and x.is_floating_point() else x
    steps, floor, ceiling = _along(wide, scale, low, high, axis)
    return (wide / steps).round_().clamp_(floor, ceiling).mul_(steps).to(x.dtype)


@fake_quantize.register_fake
def _(
    x: Tensor,
    scale: Tensor,
    bits: Sequence[int],
    low: Sequence[int],
    high: Sequence[int],
    axis: int,
    label: str,
    engines: str,
    unit: Tensor | None = None,
    unit_axis: int = 0,
) -> Tensor:
    return torch.empty_like(x)


def _requantized(
    x: Tensor, scale: Tensor, unit: Tensor, unit_axis: int, low: int, high: int
) -> Tensor:
    """Return a sum of products rounded; its own error, of an addition in floats, is gone."""
    shape = [1] * x.dim()
    if unit.numel() > 1:
        shape[unit_axis] = -1
    unit = unit.to(x.dtype)
    whole = (x / unit.view(shape)).round_()
    codes = whole.mul_((unit / scale.to(x.dtype)).view(shape)).round_()
    return codes.clamp_(low, high).mul_(scale.to(x.dtype))


def _along(
    x: Tensor, scale: Tensor, low: Sequence[int], high: Sequence[int], axis: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return scale and limits in shapes that broadcast to ``x``."""
    shape = [1] * x.dim()
    if scale.numel() > 1:
        shape[axis] = -1
    limits = (torch.tensor(list(codes), dtype=x.dtype, device=x.device) for codes in (low, high))
    floor, ceiling = (limit.view(shape if limit.numel() > 1 else [1] * x.dim()) for limit in limits)
    return scale.to(x.dtype).view(shape), floor, ceiling


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, scale, _, low, high, axis, *_ = inputs
    ctx.save_for_backward(x, scale)
    ctx.how = low, high, axis


def _straight_through(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """The gradient goes through where nothing is clipped; that of the scale is LSQ's."""
    x, scale = ctx.saved_tensors
    low, high, axis = ctx.how
    steps, floor, ceiling = _along(x, scale, low, high, axis)
    codes = x / steps
    inside = (codes >= floor - 0.5) & (codes <= ceiling + 0.5)
    of_scale = None
    if ctx.needs_input_grad[1]:
        error = torch.where(inside, codes.round() - codes, codes.clamp(floor, ceiling)) * grad
        others = [d for d in range(x.dim()) if scale.numel() == 1 or d != axis % x.dim()]
        of_scale = error.sum(others).reshape(scale.shape).to(scale.dtype)
    return grad * inside, of_scale, *[None] * 8


fake_quantize.register_autograd(_straight_through, setup_context=_save)
