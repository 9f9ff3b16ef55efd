"""The scales of weights: a rule says what one step is worth in each channel."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hwcost.search.quantize_grids import BIAS, Grid
from hwcost.search.quantize_pieces import cut, rows

#: Bits -> the steps, in standard deviations, at which the grids of ``weight_grid`` have the least
#: mean squared error on normal and on Laplace weights. Found by minimising the integral of the
#: error, as tests/test_quantize.py does again; those for 2 bits are 1.224 (J. Max, "Quantizing for
#: minimum distortion", 1960, table 2: 3 levels) and the square root of 2.
BEST_STEPS: dict[int, tuple[float, float]] = {
    2: (1.22404, 1.41421),
    3: (0.65077, 0.82175),
    4: (0.35342, 0.48690),
    5: (0.19325, 0.28745),
    6: (0.10550, 0.16785),
    7: (0.05726, 0.09673),
    8: (0.03087, 0.05502),
}
#: Root mean square over mean absolute value, of normal and of Laplace weights.
NORMAL, LAPLACE = (torch.pi / 2) ** 0.5, 2**0.5
#: Up to here ``auto`` clips: above, the error of clipping exceeds that of wider steps as soon as
#: the weights are not quite of the assumed distribution.
AUTO_CLIPS = 5
#: Channels whose scale would be below this count as zeros.
LEAST = 2.0**-60


class Spread:
    """How far the weights of each channel spread: tensors of shape ``(channels,)``.

    Args:
        w: rows of weights, shape ``(channels, size)``.
    """

    def __init__(self, w: Tensor) -> None:
        self._rows = w

    @cached_property
    def largest(self) -> Tensor:
        """The largest absolute value."""
        return torch.maximum(self._rows.amax(1), -self._rows.amin(1))

    @cached_property
    def rms(self) -> Tensor:
        """The root of the mean square."""
        norms: Tensor = torch.linalg.vector_norm(self._rows, dim=1)
        return norms / math.sqrt(self._rows.shape[1])

    @cached_property
    def tails(self) -> Tensor:
        """How much the weights are like Laplace's, 0 to 1, times ``rms``; normal ones are not."""
        mean = torch.cat([part.abs().mean(1) for (part,) in cut(self._rows)])
        ratio = self.rms / mean.clamp_min_(LEAST)
        return ratio.sub_(NORMAL).mul_(1 / (LAPLACE - NORMAL)).clamp_(0, 1).mul_(self.rms)


@dataclass(frozen=True)
class WeightRule:
    """How scales follow from weights.

    Attributes:
        scales: spread and grid -> scales, shape ``(channels,)``.
        clipping: the most bits at which weights may be beyond the grid's ends.
        learned: what ``scales`` returns is only where training starts.
    """

    scales: Callable[[Spread, Grid], Tensor]
    clipping: int = 0
    learned: bool = False

    def __call__(
        self, w: Tensor, axis: int, grids: Sequence[Grid], least: Tensor | None = None
    ) -> Tensor:
        """Return scales of shape ``(channels, choices)``, float32, above 0 even of zeros.

        Args:
            w: weights whose channels lie along ``axis``.
            least: what a channel's scale must be at least, shape ``(channels,)``; see
                ``least_scales``.
        """
        with torch.no_grad():
            spread = Spread(rows(w.detach().float(), axis))
            return _positive(torch.stack([self.scales(spread, grid) for grid in grids], 1), least)

    def clips(self, grids: Sequence[Grid]) -> bool:
        """Whether some weights may be beyond a grid's ends."""
        return self.learned or any(grid.bits <= self.clipping for grid in grids)


def _min_max(spread: Spread, grid: Grid) -> Tensor:
    return spread.largest / grid.high


def _gauss(spread: Spread, grid: Grid) -> Tensor:
    if grid.bits not in BEST_STEPS:
        return _min_max(spread, grid)
    return torch.minimum(_min_max(spread, grid), BEST_STEPS[grid.bits][0] * spread.rms)


def _shape(spread: Spread, grid: Grid) -> Tensor:
    """The step for weights between normal and Laplace: their rms over mean says where."""
    if grid.bits not in BEST_STEPS:
        return _min_max(spread, grid)
    normal, laplace = BEST_STEPS[grid.bits]
    step = torch.add(normal * spread.rms, spread.tails, alpha=laplace - normal)
    return torch.minimum(_min_max(spread, grid), step)


def _auto(spread: Spread, grid: Grid) -> Tensor:
    return (_shape if grid.bits <= AUTO_CLIPS else _min_max)(spread, grid)


#: Name -> rule. ``auto`` has the least squared error of all, or nearly, on normal and Laplace
#: weights at every number of bits.
WEIGHT_RULES: dict[str, WeightRule] = {
    "auto": WeightRule(_auto, clipping=AUTO_CLIPS),
    "minmax": WeightRule(_min_max),
    "gauss": WeightRule(_gauss, clipping=max(BEST_STEPS)),
    "lsq": WeightRule(_auto, learned=True),
}


def _positive(scales: Tensor, least: Tensor | None) -> Tensor:
    if scales.numel():
        # Zeros take the layer's largest: the step of their bias is this times the input's.
        largest = scales.amax(0, keepdim=True)
        scales = torch.where(scales < LEAST, torch.where(largest < LEAST, 1.0, largest), scales)
    return scales if least is None else torch.maximum(scales, least.float()[:, None])


@torch.no_grad()
def least_scales(bias: Tensor, scale: Tensor) -> Tensor:
    """Return the weights' scales ``(channels,)`` below which ``bias`` would not fit 32 bits.

    A channel of small weights has a fine grid, and so has its bias: too fine for a large one.

    Args:
        bias: shape ``(channels,)``.
        scale: that of the layer's input, shape ``(1,)`` or ``()``.
    """
    # Half of what there is, for the sums of products.
    return bias.abs() / (scale * (BIAS.high / 2))
