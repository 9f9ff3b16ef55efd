"""The masks of all kernels of a network as one."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hwcost.errors import SearchError
from hwcost.search.gates_masks import check_sizes, grown, refuse_nan
from hwcost.search.gates_ordered import dilation_levels, strides
from hwcost.search.gates_straight import straight_through


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
        if not len(self.beta) and not len(self.gamma):
            return self.beta.new_ones(self.total)
        layout = self._layout(self.beta.device)
        ends = layout.ends.to(self.beta.dtype)
        steps = torch.cat([self.beta, self.gamma, ends]).clamp(0, 1)
        # Not by ``cumsum``, nor by a matrix product: see ``outward_sums``.
        sums = steps.index_select(0, layout.steps).view(-1, layout.width).sum(1)
        soft = sums.clamp(max=1)
        shares = straight_through(sums >= self.threshold, soft) if binary else soft
        values = shares.index_select(0, layout.first)
        if layout.second is None:
            return values
        return values * shares.index_select(0, layout.second)

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
        ends: 0 and 1, which stand behind the vector of all parameters.
        steps: which entries of that each sum is made of, filled up with the 0, row after row,
            shape ``(sums * width,)``. Sum 0 is the 1; then come those of each step and the steps
            outside it.
        first, second: the sum behind each member's share, shape ``(total,)``. ``second`` is None
            where nothing is dilated.
    """

    ends: Tensor
    steps: Tensor
    width: int
    first: Tensor
    second: Tensor | None


def _lay_out(sizes: Sequence[int], dilated: Sequence[bool], device: torch.device) -> _Layout:
    """Return a layout whose steps are those of all ordered masks, then of all dilations."""
    kernels = [range(size - 1) for size in sizes]
    dilations = [dilation_levels(n)[1] for n, has in zip(sizes, dilated, strict=True) if has]
    orders = [*kernels, *dilations]
    lengths = torch.tensor([len(order) for order in orders])
    total, width = int(lengths.sum()), int(lengths.max())
    starts = (lengths.cumsum(0) - lengths).tolist()
    rows = [torch.full((1, width), total)]
    rows[0][0, 0] = total + 1
    for order, start in zip(orders, starts, strict=True):
        rows.append(_outer(torch.tensor(order, dtype=torch.int64) + start, total, width))
    left = iter(starts[len(sizes) :])
    first, second = [], []
    for start, size, has in zip(starts, sizes, dilated, strict=False):
        first += _sums(start, range(size))
        second += _sums(next(left), dilation_levels(size)[0]) if has else [0] * size
    return _Layout(
        ends=torch.tensor([0.0, 1.0], device=device),
        steps=torch.cat(rows).flatten().to(device),
        width=width,
        first=torch.tensor(first, device=device),
        second=torch.tensor(second, device=device) if any(dilated) else None,
    )


def _outer(entries: Tensor, nothing: int, width: int) -> Tensor:
    """Return for each step its entry and those after it, shape ``(steps, width)``."""
    rows = torch.full((len(entries), width), nothing)
    for step in range(len(entries)):
        rows[step, step : len(entries)] = entries[step:]
    return rows


def _sums(start: int, levels: Sequence[int]) -> list[int]:
    """Return the sum behind each level's share, of a mask whose steps begin at ``start``."""
    return [start + level if level else 0 for level in levels]
