"""The ranges of tensors over batches of data."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hwcost.errors import SearchError

#: Bins of a histogram, a power of two: a percentile is known to 1/1024 of the maximum or better.
BINS = 2048


class Calibration:
    """Histograms of the absolute values of tensors, by name, of a size that data never change."""

    def __init__(self) -> None:
        self._seen: dict[str, _Histogram] = {}

    def observe(self, name: str, x: Tensor) -> None:
        """Count the elements of ``x``.

        Raises:
            SearchError: some are not finite.
        """
        if not x.numel():
            return
        x = x.detach().float()
        low, high = (float(end) for end in torch.aminmax(x))
        if not math.isfinite(low + high):
            raise SearchError(f"{name!r} has values that are not finite: {low} to {high}")
        self._seen.setdefault(name, _Histogram()).add(x, low, high)

    def __contains__(self, name: str) -> bool:
        return name in self._seen

    def range(self, name: str, percentile: float = 100.0) -> float:
        """Return what ``percentile`` of the absolute values do not exceed; at 100 the maximum.

        Raises:
            SearchError: nothing was seen under this name, or no percentile above 0 up to 100.
        """
        if not 0 < percentile <= 100:
            raise SearchError(f"a percentile is above 0 and at most 100, not {percentile}")
        return self._of(name).quantile(percentile / 100)

    def low(self, name: str) -> float:
        """Return the smallest value seen.

        Raises:
            SearchError: nothing was seen under this name.
        """
        return self._of(name).low

    def _of(self, name: str) -> "_Histogram":
        if name not in self._seen:
            raise SearchError(f"no data were seen for {name!r}")
        return self._seen[name]


@dataclass
class _Histogram:
    """Counts of absolute values in bins of equal width between 0 and ``2**exponent``."""

    low: float = math.inf
    high: float = 0.0
    exponent: int | None = None
    counts: Tensor = field(default_factory=lambda: torch.zeros(BINS, dtype=torch.float64))

    def add(self, x: Tensor, low: float, high: float) -> None:
        self.low = min(self.low, low)
        largest = max(abs(low), abs(high))
        self.high = max(self.high, largest)
        if not largest:
            self.counts[0] += x.numel()
            return
        # From -100 on, the width of a bin is a normal float32.
        exponent = max(math.frexp(largest)[1], -100)
        self.exponent = exponent if self.exponent is None else self._widened(exponent)
        # In units of the range: histc takes its limits in float32.
        units = x.abs() * 2.0**-self.exponent
        self.counts += torch.histc(units, BINS, 0.0, 1.0).double().cpu()

    def _widened(self, exponent: int) -> int:
        """Return the exponent that holds both, after joining bins to those of the wider range."""
        assert self.exponent is not None
        joined = 2 ** min(max(exponent - self.exponent, 0), BINS.bit_length() - 1)
        sums = self.counts.view(-1, joined).sum(1)
        self.counts = torch.zeros_like(self.counts)
        self.counts[: len(sums)] = sums
        return max(exponent, self.exponent)

    def quantile(self, share: float) -> float:
        """Return the value below which ``share`` of all lie; within a bin by proportion."""
        if share == 1 or self.exponent is None:
            return self.high
        below = self.counts.cumsum(0)
        wanted = share * float(below[-1])
        place = min(int(torch.searchsorted(below, wanted)), BINS - 1)
        before = float(below[place] - self.counts[place])
        inside = (wanted - before) / max(float(self.counts[place]), 1.0)
        return float(min((place + inside) / BINS * 2.0**self.exponent, self.high))
