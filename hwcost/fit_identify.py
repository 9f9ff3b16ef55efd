"""Which params the data identify, and how well."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hwcost.fit_params import FitParam
from hwcost.fit_solver import Residuals, Solution, solve

#: A param whose standard error is larger, relative to its value, is taken for known only if the
#: data speak against the file's value.
UNKNOWN = 0.5

#: Twice the loss, in units of the residuals' variance, that speaks against a value: two sigma.
_AGAINST = 4.0

#: The correlation from which two params are known only together.
_TOGETHER = 0.7

#: The least mean curvature of the loss: with less, more rows are outliers than not.
_LEAST_GAIN = 0.3

#: The least spread that residuals are taken to have: measurements repeat within a percent at best.
_LEAST_NOISE = 0.01


@dataclass(frozen=True)
class Known:
    """What the data say of a param.

    Attributes:
        error: standard error, relative; NaN where the data do not tell.
        note: why they do not, in words; empty where they do.
        kept: whether the value is the file's.
    """

    error: float
    note: str = ""
    kept: bool = False


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
    notes = [""] * len(params)
    tried: set[int] = set()
    while True:
        errors = standard_errors(best, params, free & ~_at_bound(best, low, high))
        worst = _least_known(errors, best, free, tried)
        if worst is None:
            break
        tried.add(worst)
        held = free.clone()
        held[worst] = False
        at = best.at.clone()
        at[worst] = own[worst]
        other = solve(residuals, [at], low, high, held)
        if _speaks_against(best, other, int(free.sum())):
            continue
        notes[worst] = _why(best, free, worst, params)
        best, free = other, held
    return Estimate(best, _known(best, params, errors, notes, free, low, high))


def _known(
    best: Solution,
    params: Sequence[FitParam],
    errors: Tensor,
    notes: list[str],
    free: Tensor,
    low: Tensor,
    high: Tensor,
) -> tuple[Known, ...]:
    found = []
    for i, error in enumerate(errors.tolist()):
        if not free[i]:
            found.append(Known(math.nan, notes[i], kept=True))
        elif best.at[i] <= low[i] or best.at[i] >= high[i]:
            which = "lower" if best.at[i] <= low[i] else "upper"
            found.append(Known(math.nan, f"at its {which} bound"))
        elif not math.isfinite(error):
            found.append(Known(math.nan, "the data only keep it from the file's value"))
        else:
            found.append(Known(error))
    return tuple(found)


def _at_bound(best: Solution, low: Tensor, high: Tensor) -> Tensor:
    return (best.at <= low) | (best.at >= high)


def standard_errors(best: Solution, params: Sequence[FitParam], free: Tensor) -> Tensor:
    """Return the standard error of each param relative to its value, infinite if unknown.

    That of an M-estimator: Huber, Robust statistics, 1981, eq. 6.5 of chapter 7.
    """
    errors = torch.full((len(params),), math.inf, dtype=torch.float64)
    chosen = free.nonzero().flatten()
    if not len(chosen):
        return errors
    slopes = best.slopes[:, chosen]
    sizes = slopes.norm(dim=0)
    unit = slopes / sizes.clamp(min=1e-300)
    _, singular, right = torch.linalg.svd(unit, full_matrices=False)
    if len(singular) < len(chosen):
        return errors
    inverse = torch.where(singular > 1e-8, 1 / singular, math.inf)
    parts = torch.where(right.abs() > 1e-6, right * inverse[:, None], 0.0)
    spread = noise(best, len(chosen)) * parts.square().sum(0).sqrt() / sizes
    for place, index in enumerate(chosen.tolist()):
        if sizes[place] > 1e-9:
            errors[index] = _relative(params[index], best, index, spread[place])
    return errors


def _relative(param: FitParam, best: Solution, index: int, spread: Tensor) -> float:
    """A standard error of the solver's number as one of the param, relative to its value."""
    value = param.outer(float(best.at[index]))
    return float(spread) * abs(param.slope(value) / value) if value else math.inf


def noise(best: Solution, params: int) -> float:
    """Return the standard deviation of a residual, outliers held down."""
    pull = best.residuals * best.loss.weight(best.residuals)
    gain = float(best.loss.gain(best.residuals).mean())
    rows = len(best.residuals)
    spread = math.sqrt(float(pull.square().sum()) / max(rows - params, 1))
    return max(spread / max(gain, _LEAST_GAIN), _LEAST_NOISE)


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


def _why(best: Solution, free: Tensor, index: int, params: Sequence[FitParam]) -> str:
    """Why the data do not tell a param: nothing depends on it, or others make up for it."""
    sizes = best.slopes.norm(dim=0)
    if sizes[index] <= 1e-9:
        return "no row depends on it"
    chosen = [i for i in free.nonzero().flatten().tolist() if sizes[i] > 1e-9]
    if _relative(params[index], best, index, noise(best, len(chosen)) / sizes[index]) > UNKNOWN:
        return "too little depends on it"
    unit = best.slopes[:, chosen] / sizes[chosen]
    _, singular, right = torch.linalg.svd(unit, full_matrices=False)
    scaled = right / singular.clamp(min=1e-8)[:, None]
    errors = scaled.square().sum(0).sqrt()
    place = chosen.index(index)
    shared = (scaled * scaled[:, place : place + 1]).sum(0) / errors / errors[place]
    others = [
        params[i].name
        for i, share in zip(chosen, shared.abs().tolist(), strict=True)
        if share > _TOGETHER and i != index
    ]
    return (
        f"known only together with {', '.join(others)}" if others else "the others make up for it"
    )
