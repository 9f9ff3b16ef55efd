"""The masks of all kernels of a network as one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hwcost.errors import SearchError
from hwcost.search.gates_masks import check_sizes, grown, refuse_nan
from hwcost.search.gates_ordered import dilation_levels, outward, outward_sums, strides


class KernelBank(nn.Module):
    """Masks of kernels by name in one vector, read in a few operations however many there are.

    Each is an ``OrderedMask``, alone or times a ``DilationMask``.

    Args:
        threshold: that of all masks.

    Attributes:
        beta, gamma: the parameters of all ordered masks, and of all dilations.
        places: name -> the entries of a mask, in the order in which masks were added.
    """

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__()
        self.threshold = threshold
        self.places: dict[str, slice] = {}
        self.beta = nn.Parameter(torch.ones(0), requires_grad=False)
        self.gamma = nn.Parameter(torch.ones(0), requires_grad=False)
        self._dilated: list[bool] = []
        self._layouts: dict[torch.device, _Layout] = {}

    @property
    def total(self) -> int:
        """How many members all masks have."""
        return max((place.stop for place in self.places.values()), default=0)

    def add(self, name: str, size: int, dilation: bool = False) -> slice:
        """Add a mask and return its place; before an optimizer has the parameters.

        Raises:
            SearchError: the name is taken, or the size no whole number above 0.
        """
        check_sizes(name, size=size)
        if name in self.places:
            raise SearchError(f"there is a mask {name!r} already")
        self.places[name] = slice(self.total, self.total + size)
        self._dilated.append(dilation)
        self._layouts.clear()
        self.beta = grown(self.beta, size - 1)
        self.gamma = grown(self.gamma, strides(size) if dilation else 0)
        return self.places[name]

    def soft(self) -> Tensor:
        """Return the share of each member in [0, 1], shape ``(total,)``."""
        return self._read(binary=False)

    def binary(self) -> Tensor:
        """Return 0 or 1 with the gradient of ``soft``, shape ``(total,)``."""
        return self._read(binary=True)

    def hard(self) -> Tensor:
        """Return which members stay, bool, shape ``(total,)``.

        Raises:
            SearchError: a parameter is NaN.
        """
        for kind, parameter in self.named_parameters():
            refuse_nan(f"{kind} of kernels", parameter)
        return self.binary().detach() > 0

    def project(self) -> None:
        """Put the parameters into [0, 1], as they are read."""
        self.beta.data.clamp_(0, 1)
        self.gamma.data.clamp_(0, 1)

    def extra_repr(self) -> str:
        """Return how many there are, for ``repr``."""
        return f"{len(self.places)} masks, {self.total} members"

    def _read(self, binary: bool) -> Tensor:
        weights = torch.cat([self.beta, self.gamma]) if len(self.gamma) else self.beta
        if not len(weights):
            return weights.new_ones(self.total)
        threshold = self.threshold if binary else None
        values: Tensor = _Read.apply(weights, self._layout(weights.device), threshold)
        return values

    def _layout(self, device: torch.device) -> "_Layout":
        if device not in self._layouts:
            sizes = [place.stop - place.start for place in self.places.values()]
            self._layouts[device] = _lay_out(sizes, self._dilated, device)
        return self._layouts[device]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_layouts": {}}


@dataclass(frozen=True, eq=False)
class _Layout:
    """Where the steps and members of a bank are.

    Attributes:
        steps: entry in the vector of all parameters of each step, row after row, shape
            ``(rows * most steps,)``.
        inside: 1, and 0 beyond a row's last step, shape ``(rows, most steps)``.
        picks: see ``outward``.
        first, second: place of each member's share, shape ``(total,)``; 0 is a share of 1, then
            come those of ``steps``, flattened. ``second`` is None where nothing is dilated.
    """

    steps: Tensor
    inside: Tensor
    picks: Tensor
    first: Tensor
    second: Tensor | None

    def sums(self, weights: Tensor) -> Tensor:
        """Return for each step the sum of itself and those outside it, shaped as ``inside``."""
        steps = weights.clamp(0, 1).index_select(0, self.steps).view_as(self.inside)
        return outward_sums(steps * self.inside, self.picks)

    def shares(self, sums: Tensor, threshold: float | None) -> Tensor:
        """Return what ``first`` and ``second`` pick from: 0 or 1, or without threshold shares."""
        read = sums.clamp(max=1)
        if threshold is not None:
            # The difference is 0 but for NaN, which stays to be seen.
            read = (sums >= threshold) + (sums - sums)
        return torch.cat([read.new_ones(1), read.flatten()])


class _Read(torch.autograd.Function):
    """The shares of all members; 0 or 1 with the gradient of the share where there is a threshold.

    One node in place of a dozen, which take several times as long.
    """

    @staticmethod
    def forward(ctx: Any, weights: Tensor, layout: _Layout, threshold: float | None) -> Tensor:
        ctx.save_for_backward(weights)
        ctx.layout, ctx.threshold = layout, threshold
        shares = layout.shares(layout.sums(weights), threshold)
        values = shares.index_select(0, layout.first)
        if layout.second is not None:
            values *= shares.index_select(0, layout.second)
        return values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (weights,) = ctx.saved_tensors
        layout = ctx.layout
        sums = layout.sums(weights)
        inside = (weights >= 0) & (weights <= 1)
        of_sums = _of_shares(grad, layout, layout.shares(sums, ctx.threshold)) * (sums <= 1)
        # Each step is in its own sum and in those of the steps before it.
        of_steps = (of_sums.unsqueeze(-1) * layout.picks).sum(-2) * layout.inside
        zeros = torch.zeros_like(weights)
        return zeros.index_add(0, layout.steps, of_steps.flatten()) * inside, None, None


def _of_shares(grad: Tensor, layout: _Layout, shares: Tensor) -> Tensor:
    """Return the gradient of the shares from that of the members."""
    zeros = torch.zeros_like(shares)
    if layout.second is None:
        out = zeros.index_add(0, layout.first, grad)
    else:
        first, second = (shares.index_select(0, i) for i in (layout.first, layout.second))
        out = zeros.index_add(0, layout.first, grad * second)
        out = out.index_add(0, layout.second, grad * first)
    return out[1:].view_as(layout.inside)


def _lay_out(sizes: Sequence[int], dilated: Sequence[bool], device: torch.device) -> _Layout:
    """Return a layout whose rows are all ordered masks, then all dilations."""
    kernels = [(range(size), range(size - 1)) for size in sizes]
    dilations = [dilation_levels(size) for size, has in zip(sizes, dilated, strict=True) if has]
    orders = [order for _, order in [*kernels, *dilations]]
    width = max(map(len, orders))
    steps, inside = torch.zeros(2, len(orders), width)
    start = 0
    for row, order in enumerate(orders):
        steps[row, : len(order)] = torch.tensor(order) + start
        inside[row, : len(order)] = 1
        start += len(order)
    first, second, row = [], [], len(sizes)
    for number, (size, has) in enumerate(zip(sizes, dilated, strict=True)):
        first += _shares(number, width, range(size))
        second += _shares(row, width, dilation_levels(size)[0]) if has else [0] * size
        row += has
    return _Layout(
        steps=steps.long().flatten().to(device),
        inside=inside.to(device),
        picks=outward(width).to(device),
        first=torch.tensor(first, device=device),
        second=torch.tensor(second, device=device) if any(dilated) else None,
    )


def _shares(row: int, width: int, levels: Sequence[int]) -> list[int]:
    return [row * width + level if level else 0 for level in levels]
