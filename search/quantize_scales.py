"""Learned scales of activations: all points of a network in one parameter."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from hwcost.errors import SearchError
from hwcost.search.quantize_grids import Grid

#: Parameters are base-2 logarithms, read within these limits: clips and steps stay positive.
LOWEST, HIGHEST = -24.0, 24.0


@dataclass(frozen=True)
class Quantizer:
    """How scales follow from parameters.

    Attributes:
        shares_clip: one parameter, the largest value for all choices, whose scales are that over
            their largest codes; if not, a parameter for each choice, its scale.
        learns_inside: the gradient of a scale counts rounding errors, not only what is clipped.
        initial: the largest value and a grid -> the first scale of this choice.
    """

    shares_clip: bool
    learns_inside: bool
    initial: Callable[[float, Grid], float]

    def parameters(self, grids: Sequence[Grid]) -> int:
        """Return how many parameters a point has."""
        return 1 if self.shares_clip else len(grids)


def _of_range(max_abs: float, grid: Grid) -> float:
    return max_abs / grid.high


#: Name -> quantizer of activations: PACT, arXiv:1805.06085; LSQ, arXiv:1902.08153.
QUANTIZERS: dict[str, Quantizer] = {
    "pact": Quantizer(shares_clip=True, learns_inside=False, initial=_of_range),
    "lsq": Quantizer(shares_clip=False, learns_inside=True, initial=_of_range),
}


@dataclass(frozen=True)
class _Point:
    quantizer: Quantizer
    grids: tuple[Grid, ...]
    place: slice


class ScaleBank(nn.Module):
    """The scales of all points where tensors are rounded.

    Attributes:
        log2: the parameters of all points, base-2 logarithms of clips or of scales.
        grad_scale: what the gradient of each parameter is multiplied by, 1 until ``set_size``.
    """

    grad_scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.log2 = nn.Parameter(torch.zeros(0))
        self.register_buffer("grad_scale", torch.ones(0))
        self._points: dict[str, _Point] = {}
        self._layouts: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def add(self, name: str, quantizer: str, grids: Sequence[Grid], max_abs: float = 1.0) -> int:
        """Add a point, and return its number; before an optimizer has the parameter.

        Raises:
            SearchError: a name that is taken, a quantizer that does not exist, or no grids.
        """
        if name in self._points:
            raise SearchError(f"there is a point {name!r} already")
        if quantizer not in QUANTIZERS:
            raise SearchError(f"no quantizer {quantizer!r}; known: {', '.join(QUANTIZERS)}")
        if not grids:
            raise SearchError(f"point {name!r} needs a grid")
        kind, start = QUANTIZERS[quantizer], len(self.log2)
        place = slice(start, start + kind.parameters(grids))
        self._points[name] = _Point(kind, tuple(grids), place)
        self._grow(place.stop - start)
        self.set_range(name, max_abs)
        return len(self._points) - 1

    def _grow(self, more: int) -> None:
        added = self.log2.new_zeros(more)
        self.log2 = nn.Parameter(torch.cat([self.log2.detach(), added]), self.log2.requires_grad)
        self.grad_scale = torch.cat([self.grad_scale, torch.ones_like(added)])
        self._layouts.clear()

    @property
    def names(self) -> list[str]:
        """The points in the order in which they were added."""
        return list(self._points)

    def scales(self) -> list[Tensor]:
        """Return the scales of each point, shape ``(choices,)`` each."""
        if not self._points:
            return []
        index, divisors = self._layout(self.log2.device)
        logs: Tensor = _Scaled.apply(self.log2, self.grad_scale)  # type: ignore[no-untyped-call]
        values = logs.clamp(LOWEST, HIGHEST).exp2().index_select(0, index) / divisors
        return list(values.split([len(point.grids) for point in self._points.values()]))

    def learns_inside(self, name: str) -> bool:
        """Whether a point's scales learn from rounding errors."""
        return self._points[name].quantizer.learns_inside

    @torch.no_grad()
    def set_range(self, name: str, max_abs: float) -> None:
        """Let a point reach as far as ``max_abs``.

        Raises:
            SearchError: not a finite number of 0 or more; from 0 follows the least clip there is.
        """
        if not (math.isfinite(max_abs) and max_abs >= 0):
            raise SearchError(f"the range of {name!r} must be finite and 0 or more, not {max_abs}")
        point = self._points[name]
        scales = [point.quantizer.initial(max_abs, grid) for grid in point.grids]
        values = [max_abs] if point.quantizer.shares_clip else scales
        logs = [math.log2(max(value, 2.0**LOWEST)) for value in values]
        self.log2[point.place] = torch.tensor(logs, dtype=self.log2.dtype, device=self.log2.device)
        self.log2.clamp_(LOWEST, HIGHEST)

    @torch.no_grad()
    def regrid(self, name: str, grids: Sequence[Grid]) -> None:
        """Give a point other grids, as many as it had; its ranges stay.

        Raises:
            SearchError: more or fewer grids.
        """
        point = self._points[name]
        if len(grids) != len(point.grids):
            raise SearchError(f"point {name!r} has {len(point.grids)} grids, not {len(grids)}")
        if not point.quantizer.shares_clip:
            ratios = [old.high / new.high for old, new in zip(point.grids, grids, strict=True)]
            self.log2[point.place] += torch.tensor(ratios).to(self.log2).log2()
        self._points[name] = replace(point, grids=tuple(grids))
        self._layouts.clear()

    @torch.no_grad()
    def set_size(self, name: str, elements: int) -> None:
        """Scale a point's gradients for tensors of so many elements, after LSQ, section 2.2."""
        point = self._points[name]
        grids = point.grids[-1:] if point.quantizer.shares_clip else point.grids
        factors = [1 / math.sqrt(max(elements, 1) * grid.high) for grid in grids]
        self.grad_scale[point.place] = self.grad_scale.new_tensor(factors)

    @torch.no_grad()
    def project(self) -> None:
        """Move parameters that left the limits back to them; after a step of an optimizer."""
        self.log2.clamp_(LOWEST, HIGHEST)

    def _layout(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return each scale's parameter, and what its power of two is divided by."""
        if device not in self._layouts:
            index, divisors = [], []
            for point in self._points.values():
                shared, start = point.quantizer.shares_clip, point.place.start
                choices = range(len(point.grids))
                index += [start + (0 if shared else choice) for choice in choices]
                divisors += [float(grid.high) if shared else 1.0 for grid in point.grids]
            numbers = torch.tensor(index, device=device), torch.tensor(divisors, device=device)
            self._layouts[device] = numbers
        return self._layouts[device]


class _Scaled(torch.autograd.Function):
    """A value whose gradient is multiplied."""

    @staticmethod
    def forward(ctx: "_Context", x: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: "_Context", grad: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.saved_tensors
        return grad * factor, None


class _Context(torch.autograd.function.FunctionCtx):
    saved_tensors: tuple[Tensor, ...]
