"""Prepare a copied model for quantization: fold norms, find the points, act on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hwcost.errors import SearchError
from hwcost.search.attention import Attention, slow_path
from hwcost.search.choice import Choice
from hwcost.search.fold import fold_norms, plain_weights
from hwcost.search.frames import Frames
from hwcost.search.method import Trace
from hwcost.search.points import Point, Points, find_points
from hwcost.search.quantize import QUANTIZERS
from hwcost.search.sites import Sites, find_sites
from hwcost.search.swap import AROUND, put_around, replace_forward, user_forward

if TYPE_CHECKING:
    from hwcost.search.quantized import QuantizedMethod


@dataclass(frozen=True)
class PointPlan:
    """How a point may be quantized.

    Attributes:
        point: which.
        bits: precisions to choose from, ascending.
        quantizer: one of ``QUANTIZERS``.
    """

    point: Point
    bits: tuple[int, ...]
    quantizer: str

    @property
    def learns_inside(self) -> bool:
        """Whether its scale learns from rounding errors too."""
        return QUANTIZERS[self.quantizer].learns_inside


def install(method: "QuantizedMethod", model: nn.Module, trace: Trace) -> Points:
    """Fold norms, make all code visible, and let the method act at every point."""
    if isinstance(model, Choice):
        raise SearchError(
            "a network that is nothing but a Choice cannot be quantized: put it into"
            " an nn.Sequential"
        )
    plain_weights(model)
    for module in model.modules():
        if type(module) is nn.MultiheadAttention and _is_plain(module):
            module.__class__ = Attention  # the same, with each operation to be seen
    fold_norms(model, trace(model).recording)
    sites = find_sites(model, *trace.inputs)
    points = find_points(model, sites)
    for number, point in enumerate(points.points):
        _act(sites, point, method, number)
        for path in point.relus:
            replace_forward(model.get_submodule(path), Unclipped(method))
    _drop_idle(model, sites.frames)
    return points


def _is_plain(module: nn.MultiheadAttention) -> bool:
    return module.bias_k is None and module.bias_v is None and not module.add_zero_attn


def _act(sites: Sites, point: Point, method: "QuantizedMethod", index: int) -> None:
    for number, weight in zip(point.sites, point.sums, strict=True):
        around, site = sites.found[number]
        action = PointAction(method, index, weight)
        around.actions[False][site] = action
        around.actions[True][sites.in_training.get(number, site)] = action


def _drop_idle(model: nn.Module, frames: Frames) -> None:
    """Leave modules alone around which nothing is done."""
    arounds = [m.__dict__[AROUND] for m in model.modules()]
    sites = [s for around in arounds for s in (*around.actions[False], *around.actions[True])]
    frames.functions = any(site.function not in ("", "input") for site in sites)
    if frames.functions:
        return
    for module, around in zip(list(model.modules()), arounds, strict=True):
        if not around.root and not around.actions[False] and not around.actions[True]:
            put_around(module, None)


class PointAction:
    """Quantizes what a point holds."""

    def __init__(self, method: "QuantizedMethod", number: int, weight: str | None) -> None:
        self.method, self.number, self.weight = method, number, weight

    def __call__(self, module: Any, x: Tensor, /) -> Tensor:
        """Return it as it is stored."""
        return self.method.quantized(self.number, x, self.weight)


class Unclipped:
    """Forward of a ReLU whose result is rounded to codes of 0 and more: that clips as well."""

    def __init__(self, method: "QuantizedMethod") -> None:
        self.method = method

    def __call__(self, module: Any, x: Tensor) -> Tensor:
        """Return what is rounded next."""
        if self.method.rounds:
            return x
        out: Tensor = user_forward(module)(module, x)
        return out


@torch.no_grad()
def observed(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Run a model in evaluation mode for what it shows, and leave its modes as they were."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with slow_path():
            model(*args, **kwargs)
    finally:
        for module, training in modes:
            module.training = training
