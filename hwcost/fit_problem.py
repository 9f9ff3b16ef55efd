"""A fit as a problem for the solver: log errors over numbers that have no units."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from hwcost.fit_identify import estimate
from hwcost.fit_model import Predictor
from hwcost.fit_params import FitParam
from hwcost.measurements import Reading
from hwcost.progress import Progress

#: Starts spread over the bounds, beside the file's values and the middle.
STARTS = 8

#: Of these, so many where a network is left out.
STARTS_LEFT_OUT = 3

#: Networks are left out one by one up to so many, in so many groups beyond.
MOST_FOLDS = 10

#: A prediction is at least this share of what was measured: one of 0 has no logarithm.
_LEAST = 1e-9


class Ticker:
    """Tells how far a fit is."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._done, self._total = progress, 0, total

    def tick(self, what: str) -> None:
        """Count one more of what is done."""
        self._done = min(self._done + 1, self._total)
        if self._progress is not None:
            self._progress(what, self._done, self._total)


class Problem:
    """Logarithms of predicted over measured, as a function of the solver's numbers.

    Args:
        chosen: which readings count, bool, shape ``(readings,)``; all unless given.
    """

    def __init__(self, predictor: Predictor, chosen: Tensor | None = None) -> None:
        self.predictor, self.params = predictor, predictor.params
        self.chosen = torch.ones(len(predictor.readings), dtype=torch.bool)
        if chosen is not None:
            self.chosen = chosen
        self.own = self.inner([param.start for param in self.params])

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """The least and the largest value of each of the solver's numbers, shape ``(params,)``."""
        low, high = ([getattr(p, name) for p in self.params] for name in ("low", "high"))
        return self.inner(low), self.inner(high)

    def __call__(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """Return log errors and their slopes, shapes ``(chosen,)`` and ``(chosen, params)``."""
        values = self.values(at)
        found, slopes = self.predictor.with_slopes(values)
        measured = self.predictor.measured
        found = found.clamp(min=measured * _LEAST)
        steps = [p.slope(v) for p, v in zip(self.params, values.tolist(), strict=True)]
        slopes = slopes * torch.tensor(steps, dtype=torch.float64) / found[:, None]
        return (found / measured).log()[self.chosen], slopes[self.chosen]

    def values(self, at: Tensor) -> Tensor:
        """Return the params in SI units, shape ``(params,)``."""
        pairs = zip(self.params, at.tolist(), strict=True)
        return torch.tensor([param.outer(x) for param, x in pairs], dtype=torch.float64)

    def spread(self, count: int) -> Iterator[Tensor]:
        """Yield the middle between the bounds, and ``count`` points spread evenly over them."""
        engine = torch.quasirandom.SobolEngine(len(self.params), scramble=False)
        # The first point is the lower bound of everything, the second the middle.
        for shares in engine.draw(count + 2, dtype=torch.float64)[1:].tolist():
            yield self.inner([p.spread(s) for p, s in zip(self.params, shares, strict=True)])

    def starts(self, ticker: Ticker) -> Iterator[Tensor]:
        """Yield the file's values, then others."""
        for start in (self.own, *self.spread(STARTS)):
            yield start
            ticker.tick("fitting")

    def read(self) -> list[FitParam]:
        """Return the params that some reading depends on, at one of two places."""
        slopes = torch.stack([self(at)[1] for at in (self.own, next(self.spread(0)))])
        found = (slopes.abs() > 0).any(0).any(0)
        return [param for i, param in enumerate(self.params) if found[i]]

    def inner(self, values: Iterable[float]) -> Tensor:
        """Return the solver's numbers for params in SI units, shape ``(params,)``."""
        pairs = zip(self.params, values, strict=True)
        return torch.tensor([param.inner(v) for param, v in pairs], dtype=torch.float64)


def folds_by_net(readings: Sequence[Reading]) -> list[Tensor]:
    """Return groups of whole networks, each the readings to leave out, bool, ``(readings,)``.

    None for fewer than two networks.
    """
    nets = list(dict.fromkeys(reading.net for reading in readings))
    if len(nets) < 2:
        return []
    size: dict[str, int] = defaultdict(int)
    for reading in readings:
        size[reading.net] += 1
    groups: list[list[str]] = [[] for _ in range(min(len(nets), MOST_FOLDS))]
    for net in sorted(nets, key=lambda net: -size[net]):
        min(groups, key=lambda group: sum(size[n] for n in group)).append(net)
    return [torch.tensor([r.net in group for r in readings]) for group in groups]


def predicted_unseen(
    predictor: Predictor, folds: Sequence[Tensor], ticker: Ticker
) -> Tensor | None:
    """Return predictions by fits without the reading's network, SI units, ``(readings,)``.

    These fits know nothing of the file's values, which may have seen the network: a param that the
    other networks do not tell stays halfway between its bounds.
    """
    if not folds:
        return None
    unseen = torch.zeros(len(predictor.readings), dtype=torch.float64)
    for left_out in folds:
        problem = Problem(predictor, ~left_out)
        starts = list(problem.spread(STARTS_LEFT_OUT))
        found = estimate(problem, predictor.params, starts[0], starts, *problem.bounds)
        unseen[left_out] = predictor(problem.values(found.solution.at))[left_out]
        ticker.tick("leaving networks out")
    return unseen
