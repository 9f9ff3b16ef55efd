"""Golden points of a platform: what it predicts of ops and networks with known costs."""

import math
from dataclasses import dataclass

from hwcost.calibration import Check
from hwcost.costmodel import CostModel
from hwcost.errors import HwcostError
from hwcost.platform import Platform
from hwcost.workload import Workload


@dataclass(frozen=True, eq=False)
class Result:
    """How a check came out.

    Attributes:
        platform: the platform at the check's operating point.
        predicted: in SI units, NaN where there is no price.
        failure: why there is none.
    """

    check: Check
    platform: Platform
    predicted: float
    failure: str = ""

    @property
    def measured(self) -> float:
        """The known value in SI units."""
        return float(self.check.value.value)

    @property
    def error(self) -> float:
        """The prediction relative to the known value: 0.05 where it is 5 % above."""
        if self.measured == 0:
            return 0.0 if self.predicted == 0 else math.copysign(math.inf, self.predicted)
        return self.predicted / self.measured - 1

    @property
    def ok(self) -> bool:
        """Whether the prediction is there, and within the tolerance."""
        # Written as a difference, for which a value on the limit is within it.
        off = abs(self.predicted - self.measured)
        return off <= self.check.tolerance * abs(self.measured)


def results(platform: Platform, point: str | None = None) -> list[Result]:
    """Return how each check of a platform comes out, at the operating point that it names.

    Args:
        point: only the checks of this operating point; those of all by default.
    """
    default = platform.points[0] if platform.points else ""
    return [
        _result(platform.at(check.point or default), check)
        for check in platform.checks
        if point is None or point == (check.point or default)
    ]


def _result(platform: Platform, check: Check) -> Result:
    try:
        model = CostModel(platform, check.metric)
        predicted = float(model.total(_workload(check)).detach()) * float(model.metric.unit.value)
    except HwcostError as error:
        return Result(check, platform, math.nan, str(error))
    return Result(check, platform, predicted)


def _workload(check: Check) -> Workload:
    if check.zoo:
        from hwcost.tracing import trace
        from hwcost.zoo import ZOO

        workload = trace(*ZOO[check.zoo]())
    else:
        workload = Workload.from_columns(check.kind, **check.sizes)
    return workload.with_engines(check.engine) if check.engine else workload
