"""Searches of one method that quantizes: what ``MPS`` and ``ODiMO`` have in common."""

from collections.abc import Iterable
from typing import Any

from hwcost.search.base import Search
from hwcost.search.quantized import QuantizedMethod


class QuantizedSearch(Search):
    """A search over a network that is quantized."""

    def calibrate(self, data: Iterable[Any], percentile: float = 100.0) -> None:
        """Set the ranges of all tensors by what they hold when batches run.

        Without it, the first training batch does. In a distributed run every process must call
        it, each with batches of its own: ranges then hold what all of them saw.

        Args:
            data: batches: inputs, or tuples that begin with what the network takes.
            percentile: share of the absolute values, in percent, that a range must reach.

        Raises:
            SearchError: there are no batches, or values that are not finite.
        """
        for method in self.each_method():
            if isinstance(method, QuantizedMethod):
                method.calibrate(data, percentile)
