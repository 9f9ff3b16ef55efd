"""Differentiable rounding of activations, weights and biases to mixtures of precisions."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hwcost.search.quantize_calibration import Calibration
from hwcost.search.quantize_grids import BIAS, Grid, Rounding, activation_grid, weight_grid
from hwcost.search.quantize_mixed import Mixed
from hwcost.search.quantize_pieces import dense
from hwcost.search.quantize_scales import HIGHEST, LOWEST, QUANTIZERS, Quantizer, ScaleBank
from hwcost.search.quantize_single import Single
from hwcost.search.quantize_small import Small, is_small
from hwcost.search.quantize_weights import WEIGHT_RULES, WeightRule, least_scales

__all__ = [
    "BIAS",
    "HIGHEST",
    "LOWEST",
    "QUANTIZERS",
    "WEIGHT_RULES",
    "Calibration",
    "Grid",
    "Quantizer",
    "ScaleBank",
    "WeightRule",
    "activation_grid",
    "least_scales",
    "mixed_activation",
    "mixed_weight",
    "quantize_bias",
    "weight_grid",
]


def mixed_activation(
    x: Tensor,
    scales: Tensor,
    shares: Tensor | None,
    grids: Sequence[Grid],
    learns_inside: bool = False,
    inplace: bool = False,
) -> Tensor:
    """Return ``sum(shares * clamp(round(x / scales), low, high) * scales)``; halves go to even.

    The gradient of ``x`` is that of the result, by share, where ``low <= x / scale <= high``, and
    0 elsewhere. A scale's comes from what is clipped (PACT, arXiv:1805.06085); with
    ``learns_inside`` also from rounding errors (LSQ, arXiv:1902.08153). One choice keeps a byte
    for each element, from which a rounding error is known to 1/480 of a step; several keep ``x``.

    Args:
        x: values of any shape and floating type.
        scales: what one step is worth, above 0, shape ``(choices,)``.
        shares: shape ``(choices,)``, or None for one choice.
        grids: the codes of each choice.
        inplace: overwrite ``x``, which nobody else may need for backward; for one choice.

    Raises:
        ValueError: sizes that differ, or several choices in place.
    """
    _check(scales.shape[-1:], shares, grids)
    if shares is None:
        keeps = torch.is_grad_enabled() and (x.requires_grad or scales.requires_grad)
        how = Rounding(tuple(grids), learns_inside, inplace=inplace, keeps=keeps)
        single: Tensor = Single.apply(x, scales, how)  # type: ignore[no-untyped-call]
        return single
    if inplace:
        raise ValueError("several choices cannot be mixed in place")
    how = Rounding(tuple(grids), learns_inside)
    out: Tensor = Mixed.apply(dense(x), scales[None], shares[None], how)  # type: ignore[no-untyped-call]
    return out


def mixed_weight(
    w: Tensor,
    scales: Tensor,
    shares: Tensor | None,
    grids: Sequence[Grid],
    axis: int = 0,
    learns_inside: bool = False,
    clips: bool = True,
) -> Tensor:
    """Return the mixture of roundings of each channel, as ``mixed_activation`` does of a tensor.

    Args:
        w: weights, of any rank above 0.
        scales: shape ``(channels, choices)``.
        shares: shape ``(channels, choices)``, or ``(choices,)``: the same for all channels; None
            for one choice.
        grids: the codes of each choice.
        axis: the dimension of the channels.
        clips: False says that no weight is outside its grid: then ``w`` has the whole gradient.

    Raises:
        ValueError: sizes that differ.
    """
    _check(scales.shape[-1:], shares, grids)
    if scales.shape != (w.shape[axis], len(grids)):
        raise ValueError(
            f"expected scales of shape {(w.shape[axis], len(grids))}, not {tuple(scales.shape)}"
        )
    shares = None if shares is None else shares.expand(scales.shape)
    how = Rounding(tuple(grids), learns_inside, clips, axis % w.dim())
    if shares is not None and is_small(w, scales, how):
        small: Tensor = Small.apply(dense(w), scales, shares, how)  # type: ignore[no-untyped-call]
        return small
    out: Tensor = Mixed.apply(dense(w), scales, shares, how)  # type: ignore[no-untyped-call]
    return out


def quantize_bias(bias: Tensor, scale: Tensor) -> Tensor:
    """Return ``bias`` on the grid of 32 bits with step ``scale``, both of shape ``(channels,)``.

    The whole gradient reaches the bias, none the scale. Float64 inside: float32 knows no odd
    codes above 2**24, and takes the largest for 2**31.
    """
    with torch.no_grad():
        step = scale.double()
        codes = (bias.double() / step).round_().clamp_(BIAS.low, BIAS.high)
        rounded = codes.mul_(step).to(bias.dtype)
    out: Tensor = _Replaced.apply(bias, rounded)  # type: ignore[no-untyped-call]
    return out


class _Replaced(torch.autograd.Function):
    """The second value with the first's gradient."""

    @staticmethod
    def forward(ctx: object, kept: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


def _check(choices: Sequence[int], shares: Tensor | None, grids: Sequence[Grid]) -> None:
    given = 1 if shares is None else shares.shape[-1]
    if not (list(choices) == [len(grids)] == [given]):
        raise ValueError(
            f"{len(grids)} grids need as many scales and shares, not {list(choices)} and {given}"
        )
