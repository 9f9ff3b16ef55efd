"""How far predictions are off: median, 90th percentile, rank correlation."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hwcost.measurements import Reading

#: Fewer values than this are within their largest, not within something below it.
FEW = 10


@dataclass(frozen=True)
class Errors:
    """Relative errors over the readings of one metric, without sign: 0.08 is 8 %.

    Attributes:
        of: ``layers`` or ``nets``, what a reading is.
        p90: nine of ten readings are within; all where there are fewer than ten.
        rank: Spearman's correlation of predicted and measured; None for fewer than three.
        unseen_median: error on networks that were left out of the fit, so ``unseen_p90``; None
            where all readings are of one network.
        points: operating points of the readings, ``""`` for the platform's own.
    """

    metric: str
    of: str
    rows: int
    median: float
    p90: float
    rank: float | None
    unseen_median: float | None
    unseen_p90: float | None
    points: tuple[str, ...] = ()


def errors_by_metric(
    readings: Sequence[Reading], measured: Tensor, predicted: Tensor, unseen: Tensor | None
) -> tuple[Errors, ...]:
    """Return the errors of each metric, those of layers apart from those of networks.

    Args:
        measured: shape ``(readings,)``; so the others.
        unseen: predictions by fits without the reading's network.
    """
    found = []
    for metric, of in dict.fromkeys((r.metric, r.of) for r in readings):
        chosen = torch.tensor([(r.metric, r.of) == (metric, of) for r in readings])
        off = (predicted / measured - 1).abs()[chosen]
        apart = None if unseen is None else (unseen / measured - 1).abs()[chosen]
        found.append(
            Errors(
                metric=metric,
                of=of,
                rows=len(off),
                median=quantile(off, 0.5),
                p90=p90(off),
                rank=spearman(predicted[chosen], measured[chosen]),
                unseen_median=None if apart is None else quantile(apart, 0.5),
                unseen_p90=None if apart is None else p90(apart),
                points=tuple(
                    dict.fromkeys(r.point for r in readings if (r.metric, r.of) == (metric, of))
                ),
            )
        )
    return tuple(found)


def p90(values: Tensor) -> float:
    """Return what nine of ten values are within: the largest of fewer than ten."""
    return quantile(values, 0.9) if len(values) >= FEW else float(values.max())


def quantile(values: Tensor, share: float) -> float:
    """Return a quantile, between the two nearest values where it falls between them."""
    return float(torch.quantile(values, share))


def spearman(one: Tensor, other: Tensor) -> float | None:
    """Return the correlation of ranks, of equal values the mean; None for fewer than 3 values."""
    if len(one) < 3:
        return None
    ranks = torch.stack([_ranks(one), _ranks(other)])
    ranks = ranks - ranks.mean(1, keepdim=True)
    length = ranks.square().sum(1).prod().sqrt()
    return float(ranks.prod(0).sum() / length) if length > 0 else None


def _ranks(values: Tensor) -> Tensor:
    _, place, counts = values.unique(return_inverse=True, return_counts=True)
    below = counts.cumsum(0) - counts
    ranks: Tensor = (below + (counts - 1) / 2).double()[place]
    return ranks
