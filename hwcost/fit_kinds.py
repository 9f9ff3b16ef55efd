"""What kinds of op the measured rows are, on which engines the fitted platform runs them."""

from hwcost.calibration_reach import kinds_on_engines, priced_rows
from hwcost.derived_rows import measured_kinds
from hwcost.fit_model import Predictor


def kinds_of(predictor: Predictor) -> tuple[tuple[str, ...], ...]:
    """Return the kinds of the priced ops of each reading, in order, as a calibration names them.

    Where the platform has several engines, a kind has the one that runs it: ``conv on npu``.
    """
    found: list[list[str]] = [[] for _ in predictor.readings]
    several = len(predictor.platform.engines) > 1
    for group in predictor.groups:
        plan = group.model.plan(group.workload)
        kinds = (
            kinds_on_engines(predictor.platform, group.workload, plan)
            if several
            else measured_kinds(group.workload)
        )
        readings = group.readings[group.owner].tolist()
        for row in priced_rows(plan):
            found[readings[row]].append(kinds[row])
    return tuple(map(tuple, found))
