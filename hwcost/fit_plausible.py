"""Checks of measured values against the best fit: prefixes of units, clocks."""

from collections.abc import Sequence

from torch import Tensor

from hwcost.errors import FitError
from hwcost.measurements import Reading

#: Rows of one metric that are further apart than this, of what is predicted, have different units:
#: a prefix is a factor of 1000.
_APART = 300.0

#: Half of all rows further off than this: params within their bounds cannot explain the column.
_FAR = 30.0

#: Two metrics of one op whose ratio is further than this from the predicted one are at odds.
_AT_ODDS = 1.5


def check_plausible(readings: Sequence[Reading], measured: Tensor, predicted: Tensor) -> None:
    """Check that measured values are in their unit, and that two values of one row agree.

    Args:
        measured: SI units, shape ``(readings,)``; so ``predicted``, by the best fit.

    Raises:
        FitError: they are not; the message names rows.
    """
    ratios: list[float] = (measured / predicted).tolist()
    for metric in dict.fromkeys(reading.metric for reading in readings):
        mine = [(q, r.at) for q, r in zip(ratios, readings, strict=True) if r.metric == metric]
        _check_prefixes(metric, sorted(mine))
    _check_clock(readings, ratios)


def _check_prefixes(metric: str, ratios: list[tuple[float, str]]) -> None:
    least, most = ratios[0], ratios[-1]
    if most[0] > _APART * least[0]:
        # First the row that is further off.
        one, other = (most, least) if most[0] * least[0] > 1 else (least, most)
        raise FitError(
            f"{one[1]}: {metric!r} is {one[0]:.3g} times what the best fit predicts, and"
            f" {other[0]:.3g} times at {other[1]}; are both in the unit of the header?"
        )
    middle, at = ratios[len(ratios) // 2]
    if not 1 / _FAR < middle < _FAR:
        raise FitError(
            f"{at}: {metric!r} is {middle:.3g} times what the best fit predicts, as that of other"
            " rows; is the column in the unit of the header, and are the bounds wide enough?"
        )


def _check_clock(readings: Sequence[Reading], ratios: Sequence[float]) -> None:
    """Check that cycles and latency of one row are those of one clock."""
    cycles = {r.at: (q, r) for q, r in zip(ratios, readings, strict=True) if r.metric == "cycles"}
    for ratio, reading in zip(ratios, readings, strict=True):
        if reading.metric != "latency" or reading.at not in cycles:
            continue
        of_cycles, counted = cycles[reading.at]
        off = of_cycles / ratio
        if not 1 / _AT_ODDS < off < _AT_ODDS:
            clock = counted.value / reading.value
            raise FitError(
                f"{reading.at}: {counted.value:g} cycles in {reading.value:g} s are"
                f" {clock / 1e6:.4g} MHz; the platform has {clock / off / 1e6:.4g} MHz"
            )
