"""Classes of channels in the order in which they may go, axis by axis."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from hwcost.search.channels_values import Axis, Channels
from hwcost.search.pruner_scores import Scores


@dataclass
class Line:
    """The classes of an axis that may go, the least important first.

    Attributes:
        axis: the axis.
        order: classes, int64, shape ``(n,)``.
        lost: what the first of them matter together, float64, shape ``(n + 1,)``.
        steps: how many may be gone at a time, ascending, from 0.
        taken: how many are gone.
    """

    axis: Axis
    order: Tensor
    lost: Tensor
    steps: list[int]
    taken: int = 0

    def next_steps(self, most: int) -> list[int]:
        """Return how many may be gone after ``taken``, some of these where there are many."""
        left = [step for step in self.steps if step > self.taken]
        near = most * 3 // 4
        if len(left) <= most:
            return left
        far = torch.linspace(near, len(left) - 1, most - near).round().to(torch.int64).tolist()
        return [*left[:near], *(left[place] for place in far)]


def lines(
    channels: Channels,
    scores: Scores,
    *,
    minimum: float = 1,
    multiple: int = 1,
    takes: Callable[[Axis], bool] = lambda axis: True,
) -> list[Line]:
    """Return the lines of all axes that may be pruned.

    Args:
        channels: of the network.
        scores: how much each class matters.
        minimum: how many units of each layer must stay, or which share of them, if below 1.
        multiple: of what the number of classes that stay should be a multiple.
        takes: says which axes may be pruned.
    """
    least = _Least(channels, minimum)
    found = []
    for axis in channels.axes:
        if not takes(axis):
            continue
        own = torch.arange(axis.start, axis.start + axis.size)
        ranked = own[scores.classes[own].argsort(stable=True)].tolist()
        order = torch.tensor(least.removable(ranked), dtype=torch.int64)
        whole = [n for n in range(1, len(order) + 1) if (axis.size - n) % multiple == 0]
        if whole:
            found.append(Line(axis, order, scores.lost(order, own), [0, *whole]))
    return found


class _Least:
    """How many of the classes that a layer makes or reads must stay."""

    def __init__(self, channels: Channels, minimum: float) -> None:
        cuts = (cut.classes for own in channels.cuts.values() for cut in own)
        sets = {tuple(classes.unique().tolist()) for classes in cuts}
        self._left: list[int] = []
        self._sets: dict[int, list[int]] = {}
        for classes in sets:
            if classes[0] >= 0:
                least = minimum if minimum >= 1 else max(1, ceil(minimum * len(classes)))
                self._left.append(max(len(classes) - int(least), 0))
                for one in classes:
                    self._sets.setdefault(one, []).append(len(self._left) - 1)

    def removable(self, ranked: Iterable[int]) -> list[int]:
        """Return classes that may go one after another."""
        found = []
        for one in ranked:
            own = self._sets.get(one, [])
            if all(self._left[number] > 0 for number in own):
                found.append(one)
                for number in own:
                    self._left[number] -= 1
        return found
