"""Masks whose members go in a fixed order: the taps of a kernel, from the outside in."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from hwcost.search.gates_masks import check_sizes, refuse_nan
from hwcost.search.gates_straight import straight_through


class _Ordered(nn.Module):
    """Members on levels 0, 1, ...; a level stays if the steps from it outwards add up to enough.

    Level 0 always stays. Level ``l`` has the sum of the steps ``l, l + 1, ...``, each put into
    [0, 1]: a level never goes before those outside it.

    Attributes:
        levels: level of each member.
        order: which entry of the parameter is step 1, 2, ...
    """

    #: Name of the parameter.
    key: str

    def __init__(
        self, levels: Sequence[int], order: Sequence[int], threshold: float, name: str
    ) -> None:
        super().__init__()
        self.levels, self.order = tuple(levels), tuple(order)
        self.threshold, self.name = threshold, name
        self.size = len(self.levels)
        self.register_parameter(self.key, nn.Parameter(torch.ones(len(self.order))))

    def soft(self) -> Tensor:
        """Return the share of each member in [0, 1], shape ``(size,)``."""
        return self._of_members(self._reach().clamp(max=1))

    def binary(self) -> Tensor:
        """Return 0 or 1 with the gradient of ``soft``, shape ``(size,)``."""
        sums = self._reach()
        return self._of_members(straight_through(sums >= self.threshold, sums.clamp(max=1)))

    def hard(self) -> Tensor:
        """Return which members stay, bool, shape ``(size,)``.

        Raises:
            SearchError: the parameter is NaN.
        """
        refuse_nan(self.name, self.weights())
        return self.binary().detach() > 0

    def project(self) -> None:
        """Put the parameter into [0, 1], as it is read."""
        self.weights().data.clamp_(0, 1)

    def weights(self) -> Tensor:
        """Return the parameter."""
        found = self._parameters[self.key]
        assert found is not None
        return found

    def extra_repr(self) -> str:
        """Return the size, for ``repr``."""
        return str(self.size)

    def _reach(self) -> Tensor:
        weights = self.weights()
        steps = weights[torch.tensor(self.order, dtype=torch.int64, device=weights.device)]
        return outward_sums(steps.clamp(0, 1), outward(len(steps)).to(steps))

    def _of_members(self, values: Tensor) -> Tensor:
        return pad(values, (1, 0), value=1.0)[torch.tensor(self.levels, device=values.device)]


class OrderedMask(_Ordered):
    """Members ``0 .. size - 1`` by distance from the one that always stays, member 0.

    Member ``d`` has ``c_d``, the sum of ``beta_d, beta_(d + 1), ...``; it stays if that is at or
    above the threshold. All stay at the start. ``soft`` is ``min(c_d, 1)``.

    ``beta`` has ``size - 1`` entries, for members 1, 2, ..., each read as if put into [0, 1].
    Unlike an absolute value that is no obstacle: a step that an optimizer takes beyond 0 does
    not come back as a member that stays, and at 0 there is still a gradient.

    Raises:
        SearchError: the size is no whole number above 0.

    Source:
        The receptive field of PIT, arXiv:2301.10281.
    """

    key = "beta"
    beta: nn.Parameter

    def __init__(self, size: int, threshold: float = 0.5, name: str = "kernel") -> None:
        check_sizes(name, size=size)
        super().__init__(range(size), range(size - 1), threshold, name)


class DilationMask(_Ordered):
    """The taps of a kernel, by distance from the newest, that are multiples of a power of two.

    ``gamma_i`` belongs to stride ``2 ** i``, of those below the number of taps. The tap at
    distance ``d`` stays if the sum of ``gamma_i`` up to the highest power of two that divides
    ``d`` is at or above the threshold: odd distances go first, then odd multiples of two, ...
    Distance 0 always stays. All stay at the start. Values and gradients as in ``OrderedMask``.

    Args:
        taps: of the kernel.

    Raises:
        SearchError: the taps are no whole number above 0.

    Source:
        The dilation of PIT, arXiv:2301.10281.
    """

    key = "gamma"
    gamma: nn.Parameter

    def __init__(self, taps: int, threshold: float = 0.5, name: str = "dilation") -> None:
        check_sizes(name, size=taps)
        super().__init__(*dilation_levels(taps), threshold, name)


def strides(taps: int) -> int:
    """Return how many powers of two are below the number of taps."""
    return (taps - 1).bit_length()


def dilation_levels(taps: int) -> tuple[Sequence[int], Sequence[int]]:
    """Return the level of each distance, and the order of gammas from level 1 outwards."""
    count = strides(taps)
    # The lowest bit of a distance is the largest power of two that divides it.
    levels = [count + 1 - (d & -d).bit_length() if d else 0 for d in range(taps)]
    return levels, range(count - 1, -1, -1)


def outward(width: int) -> Tensor:
    """Return a matrix of 0 and 1 whose row ``i`` picks step ``i`` and those after it."""
    return torch.ones(width, width).triu()


def outward_sums(steps: Tensor, picks: Tensor) -> Tensor:
    """Return for each step the sum of itself and those after it, along the last dimension.

    Not by ``cumsum``, which is not deterministic on a GPU, nor by a matrix product, which autocast
    would round.

    Args:
        steps: shape ``(..., width)``.
        picks: ``outward(width)``.
    """
    return (steps.unsqueeze(-2) * picks).sum(-1)
