"""Move a search's decisions as little as it takes for the exported network to be on target."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hwcost.search.targets import Priced, Target

#: First step along the costs' slope, its growth, the longest one, and how many.
STEP, GROWTH, LONGEST, STEPS = 0.005, 1.3, 0.05, 200

#: How often a step is halved to find where the hard cost jumps, how many starts are tried, and
#: how far apart these are.
HALVINGS, STARTS, SPREAD = 14, 16, 0.06

#: An estimate that is as close as this to the exported cost is that cost.
_EQUAL = 1e-6


def settle(search: Priced, targets: Sequence[Target], tolerance: float, grow: bool) -> float:
    """Move the decisions until the worst hard cost is at most its target, and close to it.

    All decisions move alike along the sign of the soft cost's slope, so their order stays. Where
    one step of the staircase is wider than the tolerance, slightly different starts are tried,
    and the best is kept.

    Args:
        search: its ``nas_parameters`` change in place.
        targets: what to meet.
        tolerance: how far below the target is close enough, relative.
        grow: whether a cost that is below its target may grow.

    Returns:
        The worst of hard cost / target.
    """
    found = _settled(_Path(search, targets, exact=False), tolerance, grow)
    exact = _Path(search, targets, exact=True)
    if abs(exact.worst() - found) > _EQUAL:
        return _settled(exact, tolerance, grow)
    return found


def _settled(path: "_Path", tolerance: float, grow: bool) -> float:
    best = path.worst()
    if 1 - tolerance <= best <= 1 or (best < 1 and not grow):
        return best
    kept, generator = path.values(), torch.Generator().manual_seed(0)
    starts = path.values()
    for number in range(STARTS):
        path.put([s + _jitter(s, generator) * SPREAD * number / STARTS for s in starts])
        found = path.follow()
        if _better(found, best):
            best, kept = found, path.values()
        if 1 - tolerance <= best <= 1 or found > 1:
            break
    path.put(kept)
    return path.worst()


class _Path:
    """A line of decisions along which the costs fall.

    Args:
        exact: whether to measure what an export costs, or to take the search's own estimate.
    """

    def __init__(self, search: Priced, targets: Sequence[Target], exact: bool) -> None:
        self.search, self.targets, self.exact = search, targets, exact
        self.parameters = list(search.nas_parameters())

    def values(self) -> list[Tensor]:
        return [parameter.detach().clone() for parameter in self.parameters]

    def put(self, values: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self.parameters, values, strict=True):
                parameter.copy_(value)

    def worst(self) -> float:
        """Return the largest hard cost / target."""
        return max(self._ratios())

    def follow(self) -> float:
        """Go down, or up, to where the worst hard cost passes its target; return it, at most 1.

        Above 1 if no such point is found.
        """
        ratios, step = self._ratios(), STEP
        falling = max(ratios) > 1
        for _ in range(STEPS):
            before = self.values()
            slope = self._slope(self.targets[ratios.index(max(ratios))])
            slope = [-s if falling else s for s in slope]
            self._move(before, slope, step)
            ratios = self._ratios()
            if (max(ratios) <= 1) == falling:
                return self._bisect(before, slope, step, falling)
            step = min(step * GROWTH, LONGEST)
        return max(ratios)

    def _bisect(
        self, before: Sequence[Tensor], slope: Sequence[Tensor], step: float, falling: bool
    ) -> float:
        near, far = 0.0, step
        for _ in range(HALVINGS):
            middle = (near + far) / 2
            self._move(before, slope, middle)
            if (self.worst() <= 1) == falling:
                far = middle
            else:
                near = middle
        self._move(before, slope, far if falling else near)
        return self.worst()

    def _move(self, before: Sequence[Tensor], slope: Sequence[Tensor], step: float) -> None:
        self.put([value + step * s for value, s in zip(before, slope, strict=True)])

    def _ratios(self) -> list[float]:
        with torch.no_grad():
            search = self.search
            costs = (
                t.cost(search, True) if self.exact else t.estimate(search) for t in self.targets
            )
            return [float(c) / t.goal for c, t in zip(costs, self.targets, strict=True)]

    def _slope(self, target: Target) -> list[Tensor]:
        with _trainable(self.parameters), torch.enable_grad():
            cost = target.cost(self.search)
            if not cost.requires_grad:
                return [torch.zeros_like(p) for p in self.parameters]
            slopes = torch.autograd.grad(cost, self.parameters, allow_unused=True)
        pairs = zip(self.parameters, slopes, strict=True)
        return [torch.zeros_like(p) if s is None else s.sign() for p, s in pairs]


@contextmanager
def _trainable(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    flags = [parameter.requires_grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter, flag in zip(parameters, flags, strict=True):
            parameter.requires_grad_(flag)


def _jitter(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return numbers between -1 and 1, the same on every device."""
    return (2 * torch.rand(like.shape, generator=generator) - 1).to(like)


def _better(found: float, best: float) -> bool:
    """Whether a worst ratio is to be preferred: on target, then the closest to it."""
    return found <= 1 and (best > 1 or found > best)
