"""Robust least squares within bounds: Levenberg-Marquardt on losses that hold outliers down.

Two losses, one after the other. Soft L1 is the square of a small residual and linear in a large
one; it leads to the same place from afar. Cauchy's, from there on, lets a residual of many times
the scale pull hardly at all. The scale is that of the residuals themselves, by their median.
Everything is deterministic: the same numbers in, the same bits out.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

#: Residuals and their slopes at a point: shapes ``(rows,)`` and ``(rows, params)``.
Residuals = Callable[[Tensor], tuple[Tensor, Tensor]]

#: Scales of the loss: the first one, and the least and the largest of the later ones.
FIRST_SCALE, LEAST_SCALE, MOST_SCALE = 0.3, 0.02, 0.5

#: Cauchy's loss with so many standard deviations as scale is 95 % as efficient as squares where no
#: row is an outlier: Huber and Ronchetti, Robust statistics, 2009.
EFFICIENT = 2.385

#: How often the scale is taken from the residuals anew, with each loss.
_RESCALINGS = 2
_STEPS = 200

#: A step that lowers the loss by less than this share of it is not taken.
_LEAST_GAIN = 1e-11


@dataclass(frozen=True)
class Loss:
    """Half of what a residual costs; ``r**2 / 2`` where it is small beside the scale."""

    scale: float
    redescends: bool = False

    def total(self, residuals: Tensor) -> float:
        """Return the loss of all residuals; infinite where one is not finite."""
        z = (residuals / self.scale) ** 2
        each = (1 + z).log() / 2 if self.redescends else (1 + z).sqrt() - 1
        value = float(self.scale**2 * each.sum())
        return value if math.isfinite(value) else math.inf

    def weight(self, residuals: Tensor) -> Tensor:
        """Return the pull of each residual relative to that of its square, at most 1."""
        z = (residuals / self.scale) ** 2
        return 1 / (1 + z) if self.redescends else (1 + z).rsqrt()

    def gain(self, residuals: Tensor) -> Tensor:
        """Return how the pull of each residual changes with it, the second derivative."""
        z = (residuals / self.scale) ** 2
        return (1 - z) / (1 + z) ** 2 if self.redescends else (1 + z).pow(-1.5)


@dataclass(frozen=True, eq=False)
class Solution:
    """Where the loss is least.

    Attributes:
        at: shape ``(params,)``.
        residuals: shape ``(rows,)``.
        slopes: of the residuals, shape ``(rows, params)``.
        loss: what was made small.
    """

    at: Tensor
    residuals: Tensor
    slopes: Tensor
    loss: Loss

    @property
    def total(self) -> float:
        """The loss of all residuals."""
        return self.loss.total(self.residuals)


def solve(
    residuals: Residuals, starts: Iterable[Tensor], low: Tensor, high: Tensor, free: Tensor
) -> Solution:
    """Return the least loss that is reached from any of ``starts``.

    Args:
        starts: shape ``(params,)`` each; of equal ones the first counts.
        low: least value of each param; so ``high``.
        free: whether a param may change, bool, shape ``(params,)``.
    """
    best: Solution | None = None
    for start in starts:
        found = _descend(residuals, start, low, high, free, Loss(FIRST_SCALE))
        if best is None or found.total < best.total * (1 - 1e-6) - 1e-12:
            best = found
    assert best is not None
    for redescends in (False, True):
        for _ in range(_RESCALINGS):
            scale = robust_scale(best.residuals, int(free.sum()))
            loss = Loss(EFFICIENT * scale if redescends else scale, redescends)
            best = _descend(residuals, best.at, low, high, free, loss)
    return best


def robust_scale(residuals: Tensor, params: int) -> float:
    """Return the scale for the loss: the residuals' spread, by their median so that few count."""
    # As many as there are params may be fitted exactly and say nothing of the spread.
    sizes = residuals.abs().sort().values[min(params, len(residuals) - 1) :]
    return min(max(1.4826 * float(sizes.median()), LEAST_SCALE), MOST_SCALE)


def _descend(
    residuals: Residuals, start: Tensor, low: Tensor, high: Tensor, free: Tensor, loss: Loss
) -> Solution:
    """Follow damped Gauss-Newton steps, each cut at the bounds, for as long as they help."""
    at, damping = start.clamp(low, high), 1e-3
    values, slopes = residuals(at)
    least = loss.total(values)
    for _ in range(_STEPS):
        step, gain = _step(values, slopes, at, low, high, free, loss, damping)
        trial = (at + step).clamp(low, high)
        if gain <= _LEAST_GAIN * (least + _LEAST_GAIN) or bool((trial == at).all()):
            break
        found, found_slopes = residuals(trial)
        reached = loss.total(found)
        if reached < least:
            at, values, slopes, least = trial, found, found_slopes, reached
            damping = max(damping / 5, 1e-9)
        else:
            damping *= 4
    return Solution(at, values, slopes, loss)


def _step(
    values: Tensor,
    slopes: Tensor,
    at: Tensor,
    low: Tensor,
    high: Tensor,
    free: Tensor,
    loss: Loss,
    damping: float,
) -> tuple[Tensor, float]:
    """The step of the free params that are not held at a bound, ``(params,)``, and what it gains.

    What a step gains is by how much the loss falls if it is as round as it seems.
    """
    weight = loss.weight(values)
    downhill = -(slopes.T @ (weight * values))
    held = ((at <= low) & (downhill <= 0)) | ((at >= high) & (downhill >= 0)) | ~free
    step = torch.zeros_like(at)
    moving = (~held).nonzero().flatten()
    if len(moving):
        matrix = slopes[:, moving] * weight.sqrt()[:, None]
        normal = matrix.T @ matrix
        normal += torch.diag(damping * normal.diagonal().clamp(min=1e-12))
        step[moving] = torch.linalg.solve(normal, downhill[moving])
    return step, float(step @ downhill) / 2
