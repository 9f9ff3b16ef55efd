"""What kinds of op the measured rows are, on which engines the fitted platform runs them."""

from hwcost.calibration_reach import kinds_in_full, priced_rows
from hwcost.fit_model import Predictor
from hwcost.schema_measured import ON


def kinds_of(predictor: Predictor) -> tuple[tuple[str, ...], ...]:
    """Return the kinds of the priced ops of each reading, in order, as a calibration names them.

    With the kernel of a convolution, and the engine where there are several: ``conv 3x3 on npu``.
    """
    found: list[list[str]] = [[] for _ in predictor.readings]
    several = len(predictor.platform.engines) > 1
    for group in predictor.groups:
        plan = group.model.plan(group.workload)
        kinds = kinds_in_full(predictor.platform, group.workload, plan)
        readings = group.readings[group.owner].tolist()
        for row in priced_rows(plan):
            kind = kinds[row] if several else kinds[row].partition(ON)[0]
            found[readings[row]].append(kind)
    return tuple(map(tuple, found))
