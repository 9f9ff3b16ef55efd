"""How the weights of a layer are pruned, and when more of them are."""

import math
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from numbers import Real

from hwcost.errors import SearchError, suggestion


class _AnyCase(StrEnum):
    """Names that are read in any case."""

    @classmethod
    def _missing_(cls, value: object) -> "_AnyCase | None":
        folded = str(value).casefold()
        return next((one for one in cls if one.casefold() == folded), None)


class PruneMode(_AnyCase):
    """When weights are pruned: never, at once, or more and more of them."""

    IDENTITY = "Identity"
    STATIC = "Static"
    GRADUAL = "Gradual"


class PruneFiller(_AnyCase):
    """Which weights are pruned.

    RANDOM: as many as asked, wherever. ITERNONSTRUCT: all up to a whole multiple of ``delta``.
    MAGNITUDE: exactly as many as asked, the smallest.
    """

    RANDOM = "Random"
    ITERNONSTRUCT = "IterNonStruct"
    MAGNITUDE = "Magnitude"


class PruneUnit(_AnyCase):
    """What the step size of a gradual pruning counts."""

    SAMPLES = "samples"
    STEPS = "steps"
    EPOCHS = "epochs"


@dataclass(frozen=True)
class PruneCell:
    """How the weights of a layer are pruned; names and defaults are N2D2's.

    Args:
        prune_mode: Identity prunes nothing, Static up to ``threshold`` at once, Gradual up to
            ``start`` at once and by ``gamma`` more at each update, until ``threshold``.
        threshold: share of the weights to prune, 0 to 1.
        prune_filler: which weights: Random, IterNonStruct or Magnitude.
        delta: of IterNonStruct, above 0: weights up to a whole multiple of it are pruned.
        start: of Gradual, the share at first, 0 to ``threshold``.
        stepsize: of Gradual, how many ``unit`` lie between two updates; 0 is one epoch.
        gamma: of Gradual, what an update adds to the share, above 0.
        unit: samples (which N2D2 counts), steps or epochs.

    Modes, fillers and units are members of the enums or their names in any case.

    Raises:
        SearchError: a value is none of these.
    """

    prune_mode: PruneMode | str = PruneMode.STATIC
    threshold: float = 0.2
    prune_filler: PruneFiller | str = PruneFiller.RANDOM
    delta: float = 0.001
    start: float = 0.1
    stepsize: int = 0
    gamma: float = 0.05
    unit: PruneUnit | str = PruneUnit.SAMPLES

    def __post_init__(self) -> None:
        for name, names in (
            ("prune_mode", PruneMode),
            ("prune_filler", PruneFiller),
            ("unit", PruneUnit),
        ):
            object.__setattr__(self, name, _member(names, name, getattr(self, name)))
        for name in ("threshold", "delta", "start", "gamma"):
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        self._check()

    def _check(self) -> None:
        _require(0 <= self.threshold <= 1, "threshold", self.threshold, "a share, 0 to 1")
        _require(0 < self.delta < math.inf, "delta", self.delta, "a number above 0")
        whole = type(self.stepsize) is int and self.stepsize >= 0
        _require(whole, "stepsize", self.stepsize, "a whole number; 0 is one epoch")
        if self.prune_mode == PruneMode.GRADUAL:
            most = f"0 to the threshold, {self.threshold:g}"
            _require(0 <= self.start <= self.threshold, "start", self.start, most)
            _require(0 < self.gamma < math.inf, "gamma", self.gamma, "a number above 0")

    @property
    def counts(self) -> PruneUnit:
        """What the ticks of ``share_at`` count; one epoch where no step size is given."""
        return PruneUnit(self.unit) if self.stepsize else PruneUnit.EPOCHS

    def updates_at(self, ticks: int) -> int:
        """Return how many updates lie behind after so many samples, steps or epochs."""
        return ticks // (self.stepsize or 1)

    def share_at(self, ticks: int) -> float:
        """Return the share that is due after so many samples, steps or epochs.

        Shares add up as they are written: 0.1 and twice 0.05 is 0.2, no more.
        """
        if self.prune_mode != PruneMode.GRADUAL:
            return 0.0 if self.prune_mode == PruneMode.IDENTITY else self.threshold
        added = self.updates_at(ticks) * Decimal(repr(self.gamma))
        share = Decimal(repr(self.start)) + added
        return min(float(share), self.threshold)


def _member(names: type[StrEnum], what: str, value: object) -> StrEnum:
    try:
        return names(str(value))
    except ValueError:
        known = [str(one) for one in names]
        raise SearchError(f"{what} is {value!r}{suggestion(str(value), known)}") from None


def _number(what: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise SearchError(f"{what} is {value!r}; expected a number")
    return float(value)


def _require(holds: bool, what: str, value: object, expected: str) -> None:
    if not holds:
        raise SearchError(f"{what} is {value!r}; expected {expected}")
