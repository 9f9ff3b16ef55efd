"""What is known of a platform by measurement: golden points, and how far it is off."""

from collections.abc import Mapping
from dataclasses import dataclass

from hwcost.units import Quantity


@dataclass(frozen=True, eq=False)
class Check:
    """A golden point: an op or a network with a known cost, in SI units.

    Attributes:
        kind: of the op; empty where ``zoo`` names a network.
        point: the operating point, None for the default one.
    """

    kind: str
    sizes: Mapping[str, float]
    metric: str
    value: Quantity
    tolerance: float
    source: str
    engine: str | None
    at: str
    zoo: str = ""
    point: str | None = None


@dataclass(frozen=True)
class MeasuredError:
    """Relative errors of a metric over measured rows, without sign: 0.14 is 14 %.

    Attributes:
        p90: nine of ten rows of the calibration are within.
        of: ``layers`` or ``nets``, what a row is.
        unseen_p90: the same of rows whose networks were left out of the fit, so ``unseen_median``;
            None where nobody tried.
        points: operating points among these rows; empty where they are those of the calibration.
    """

    p90: float
    rows: int
    of: str
    median: float | None = None
    unseen_p90: float | None = None
    unseen_median: float | None = None
    points: tuple[str, ...] = ()

    @property
    def expected(self) -> float:
        """What nine of ten new networks or layers should be within."""
        return self.p90 if self.unseen_p90 is None else self.unseen_p90


@dataclass(frozen=True)
class Calibration:
    """What a platform was fitted to or compared with.

    Attributes:
        kinds: kinds of op among the rows; empty where the file does not say. So are the bits.
        points: operating points among the rows.
        errors: metric -> its errors, that of layers before that of networks.
    """

    data: str
    rows: int
    date: str
    software: str
    kinds: tuple[str, ...]
    bits: Mapping[str, tuple[int, ...]]
    points: tuple[str, ...]
    errors: Mapping[str, tuple[MeasuredError, ...]]
    note: str = ""

    def errors_at(self, metric: str, point: str) -> dict[str, MeasuredError]:
        """Return ``layers`` and ``nets`` -> how far a metric is off, as far as it is known.

        Args:
            point: an operating point; empty where the platform has none.
        """
        return {
            error.of: error
            for error in self.errors.get(metric, ())
            if not point or point in (error.points or self.points)
        }
