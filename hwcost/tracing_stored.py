"""Which constants a row stores: every weight once, at its first reader."""

from collections.abc import Iterable

from hwcost.ops import KINDS
from hwcost.recorder_values import Ref, TensorInfo
from hwcost.tracing_facts import Facts, Row


class Stored:
    """What was stored so far, while rows are made in order."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self._seen: set[tuple[int, int, int]] = set()

    def flagged(self, row: Row) -> dict[str, float]:
        """Return the sizes with ``coeffs`` and with how much of the weights counts as stored.

        A constant is stored where it is read first. Of one that is computed (weight_norm, a table
        of relative positions), what it is computed from counts: all rows together store what the
        module does.
        """
        operands = self.facts.parameters_of(r for r in row.operands if not self.facts.is_data(r))
        if "coeffs" in KINDS[row.kind].sizes:
            new = self._unstored(operands)
            coeffs = sum(self.facts.info(p).numel for p in new or operands)
            once = float(bool(new) or not operands)
            return {**row.sizes, "coeffs": coeffs, "w_once": once, "bias_once": 1.0}
        return {
            **row.sizes,
            "w_once": self._share_stored(row.weight, operands, row.experts),
            "bias_once": self._share_stored(row.bias),
        }

    def _share_stored(
        self, constant: Ref | None, others: Iterable[Ref] = (), parts: int = 1
    ) -> float:
        """Return what is stored with a row as a share of the constant that it reads.

        Args:
            constant: its weight or bias; one that depends on the input is not stored.
            others: parameters that are stored with it if nowhere else.
            parts: the row reads one of so many.
        """
        if constant is None:
            return 1.0
        stored = sum(self.facts.info(p).numel for p in self._unstored(others))
        if not self.facts.is_data(constant):
            stored += self._stored(constant)
        return stored * parts / max(self.facts.info(constant).distinct, 1)

    def _stored(self, constant: Ref) -> int:
        """Return the numbers that are stored for a constant and not for one before it."""
        info, sources = self.facts.info(constant), self.facts.parameters_of([constant])
        storage, _ = self.facts.unrounded(info)
        if sources and all(self.facts.storage(p) != storage for p in sources):
            return sum(self.facts.info(p).numel for p in self._unstored(sources))
        return info.distinct if self._is_first(info) else 0

    def _unstored(self, parameters: Iterable[Ref]) -> list[Ref]:
        return [p for p in sorted(parameters) if self._is_first(self.facts.info(p))]

    def _is_first(self, info: TensorInfo) -> bool:
        key = (*self.facts.unrounded(info), info.distinct)
        new = key not in self._seen
        self._seen.add(key)
        return new
