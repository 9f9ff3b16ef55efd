"""The scales of weights: a rule says what one step is worth in each channel."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from hwcost.search.quantize_grids import BIAS, Grid
from hwcost.search.quantize_pieces import rows

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

    Weights of removed channels and taps are 0; they say nothing.

    Args:
        w: rows of weights, shape ``(channels, size)``.
    """

    def __init__(self, w: Tensor) -> None:
        self.largest = torch.maximum(w.amax(1), -w.amin(1))
        count = torch.count_nonzero(w, 1).clamp_min_(1)
        self.rms = torch.linalg.vector_norm(w, dim=1) / count.sqrt()
        self.mean = torch.linalg.vector_norm(w, 1, dim=1) / count


@dataclass(frozen=True)
class WeightRule:
    """How scales follow from weights.

    Attributes:
        clipping: the most bits at which weights may be beyond the grid's ends.
        shaped: whether the step of clipped weights lies between the best for normal and that for
            Laplace weights, by their rms over mean; if not, it is the best for normal ones.
        learned: what it returns is only where training starts.
    """

    clipping: int = 0
    shaped: bool = True
    learned: bool = False

    @torch.no_grad()
    def __call__(
        self, w: Tensor, axis: int, grids: Sequence[Grid], least: Tensor | None = None
    ) -> Tensor:
        """Return scales of shape ``(channels, choices)``, float32, above 0 even of zeros.

        Args:
            w: weights whose channels lie along ``axis``.
            least: what a channel's scale must be at least, shape ``(channels,)``; see
                ``least_scales``.
        """
        highs, normal, laplace = _constants(tuple(grids), self.clipping, w.device)
        own = rows(w.detach().float(), axis)
        if not self.clips(grids):
            return _positive(torch.maximum(own.amax(1), -own.amin(1))[:, None] / highs, least)
        spread = Spread(own)
        steps = normal
        if self.shaped:
            ratio = spread.rms / spread.mean.clamp_min(LEAST)
            share = ((ratio - NORMAL) / (LAPLACE - NORMAL)).clamp_(0, 1)
            steps = torch.lerp(normal, laplace, share[:, None])
        scales = torch.minimum(spread.largest[:, None] / highs, steps * spread.rms[:, None])
        return _positive(scales, least)

    def clips(self, grids: Sequence[Grid]) -> bool:
        """Whether some weights may be beyond a grid's ends."""
        return self.learned or any(grid.bits <= self.clipping for grid in grids)


@cache
def _constants(
    grids: tuple[Grid, ...], clipping: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return largest codes and the best steps for normal and for Laplace weights, ``(choices,)``.

    The steps are infinite where nothing is clipped.
    """
    endless = (float("inf"), float("inf"))
    clips = [g.bits <= clipping and g.bits in BEST_STEPS for g in grids]
    best = [BEST_STEPS[g.bits] if c else endless for g, c in zip(grids, clips, strict=True)]
    # Finite, or the step of a channel of zeros would be none.
    steps = torch.tensor(best, device=device).clamp_max(1e30)
    highs = torch.tensor([float(g.high) for g in grids], device=device)
    return highs, steps[:, 0], steps[:, 1]


#: Name -> rule. ``auto`` has the least squared error of all, or nearly, on normal and Laplace
#: weights at every number of bits.
WEIGHT_RULES: dict[str, WeightRule] = {
    "auto": WeightRule(clipping=AUTO_CLIPS),
    "minmax": WeightRule(),
    "gauss": WeightRule(clipping=max(BEST_STEPS), shaped=False),
    "lsq": WeightRule(clipping=AUTO_CLIPS, learned=True),
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
