"""Standard errors of fitted params, and the noise of the rows."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hwcost.fit_params import FitParam
from hwcost.fit_solver import Solution

#: The least mean curvature of the loss: with less, more rows are outliers than not.
_LEAST_CURVATURE = 0.3

#: The least spread that residuals are taken to have: measurements repeat within a percent at best.
_LEAST_NOISE = 0.01


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
            errors[index] = relative(params[index], best, index, spread[place])
    return errors


def relative(param: FitParam, best: Solution, index: int, spread: Tensor) -> float:
    """Return a standard error of the solver's number as one of the param, relative to its value."""
    value = param.outer(float(best.at[index]))
    return float(spread) * abs(param.slope(value) / value) if value else math.inf


def noise(best: Solution, params: int) -> float:
    """Return the standard deviation of a residual, outliers held down.

    With few rows it is larger, so that a value is within one standard error in 68 % of all fits.
    """
    pull = best.residuals * best.loss.weight(best.residuals)
    gain = float(best.loss.gain(best.residuals).mean())
    spare = max(len(best.residuals) - params, 1)
    spread = math.sqrt(float(pull.square().sum()) / spare)
    return _students(spare) * max(spread / max(gain, _LEAST_CURVATURE), _LEAST_NOISE)


def _students(spare: int) -> float:
    """Student's t of one standard deviation: Abramowitz and Stegun, eq. 26.7.5 with x = 1."""
    return 1 + 1 / (2 * spare) + 1 / (4 * spare**2) + 1 / (16 * spare**3)
