"""Which params the data identify, and how well."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hwcost.fit_params import FitParam
from hwcost.fit_precision import noise, relative, standard_errors
from hwcost.fit_solver import Residuals, Solution, solve

#: A param whose standard error is larger, relative to its value, is taken for known only if the
#: data speak against the file's value.
UNKNOWN = 0.5

#: Twice the loss, in units of the residuals' variance, that speaks against a value: two sigma.
_AGAINST = 4.0

#: The correlation from which two params are known only together.
_TOGETHER = 0.7


@dataclass(frozen=True)
class Known:
    """What the data say of a param.

    Attributes:
        error: standard error, relative; NaN where the data do not tell.
        note: why they do not, in words; empty where they do.
        kept: whether the value is the file's.
        given: names of params that keep the file's value, with which alone this value is right.
    """

    error: float
    note: str = ""
    kept: bool = False
    given: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Estimate:
    """A fit: the solver's solution, and what is known of each param."""

    solution: Solution
    known: tuple[Known, ...]


def estimate(
    residuals: Residuals,
    params: Sequence[FitParam],
    own: Tensor,
    starts: Iterable[Tensor],
    low: Tensor,
    high: Tensor,
) -> Estimate:
    """Return the best fit in which params that the data cannot tell keep the file's value.

    Args:
        own: the file's values in the solver's numbers, shape ``(params,)``.
        starts: where to start from, ``own`` among them.
    """
    free = torch.ones(len(params), dtype=torch.bool)
    best = solve(residuals, starts, low, high, free)
    notes: dict[int, str] = {}
    given: dict[int, list[str]] = defaultdict(list)
    tried: set[int] = set()
    while True:
        errors = standard_errors(best, params, free & ~_at_bound(best, low, high))
        worst = _least_known(errors, best, free, tried)
        if worst is None:
            break
        tried.add(worst)
        other, held = _kept(residuals, best, own, worst, free, low, high)
        if _speaks_against(best, other, int(free.sum())):
            continue
        notes[worst], partners = _why(best, free, worst, params)
        for partner in partners:
            given[partner].append(params[worst].name)
        best, free = other, held
    found = [
        Known(math.nan, notes[i], kept=True)
        if i in notes
        else _known(best, params[i], i, error, low, high, tuple(given[i]))
        for i, error in enumerate(errors.tolist())
    ]
    return Estimate(best, tuple(found))


def _kept(
    residuals: Residuals,
    best: Solution,
    own: Tensor,
    index: int,
    free: Tensor,
    low: Tensor,
    high: Tensor,
) -> tuple[Solution, Tensor]:
    """The best fit in which one more param keeps the file's value, and which are then free."""
    held, at = free.clone(), best.at.clone()
    held[index], at[index] = False, own[index]
    return solve(residuals, [at], low, high, held), held


def _known(
    best: Solution,
    param: FitParam,
    index: int,
    error: float,
    low: Tensor,
    high: Tensor,
    given: tuple[str, ...],
) -> Known:
    """What is known of a param that may change."""
    if best.at[index] <= low[index]:
        return Known(math.nan, "at its lower bound")
    if best.at[index] >= high[index]:
        return Known(math.nan, "at its upper bound")
    if not math.isfinite(error):
        return Known(math.nan, "the data only keep it from the file's value")
    if error >= 1 and not param.logarithmic:
        return Known(math.nan, "too small to tell it from 0")
    return Known(error, given=given)


def _at_bound(best: Solution, low: Tensor, high: Tensor) -> Tensor:
    return (best.at <= low) | (best.at >= high)


def _least_known(errors: Tensor, best: Solution, free: Tensor, tried: set[int]) -> int | None:
    """The param whose error is largest, if that is too large; of equals the last."""
    worst, largest = None, UNKNOWN
    for i, error in enumerate(errors.tolist()):
        if free[i] and i not in tried and error >= largest:
            worst, largest = i, error
    return worst


def _speaks_against(best: Solution, other: Solution, params: int) -> bool:
    """Whether the data fit clearly worse where a param has the file's value."""
    worse = best.loss.total(other.residuals) - best.total
    return 2 * worse > _AGAINST * noise(best, params) ** 2


def _why(
    best: Solution, free: Tensor, index: int, params: Sequence[FitParam]
) -> tuple[str, list[int]]:
    """Why the data do not tell a param, and which others make up for it."""
    sizes = best.slopes.norm(dim=0)
    if sizes[index] <= 1e-9:
        return "no row depends on it", []
    chosen = [i for i in free.nonzero().flatten().tolist() if sizes[i] > 1e-9]
    if relative(params[index], best, index, noise(best, len(chosen)) / sizes[index]) > UNKNOWN:
        return "too little depends on it", []
    unit = best.slopes[:, chosen] / sizes[chosen]
    _, singular, right = torch.linalg.svd(unit, full_matrices=False)
    scaled = right / singular.clamp(min=1e-8)[:, None]
    errors = scaled.square().sum(0).sqrt()
    place = chosen.index(index)
    shared = (scaled * scaled[:, place : place + 1]).sum(0) / errors / errors[place]
    others = [
        i
        for i, share in zip(chosen, shared.abs().tolist(), strict=True)
        if share > _TOGETHER and i != index
    ]
    names = ", ".join(params[i].name for i in others)
    return f"known only together with {names}" if others else "the others make up for it", others
