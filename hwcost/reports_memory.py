"""Peak memory in a report: which op holds the peak, what is alive then, and whether it fits."""

import math

import sympy

from hwcost.costmodel import CostModel
from hwcost.derived_rows import derived
from hwcost.errors import HwcostError
from hwcost.explain_memory import alive, peak_row
from hwcost.formula import symbol
from hwcost.platform import Limit, Memory
from hwcost.reports_costs import Priced, no_own_warnings
from hwcost.units import engineering

_MOST_NAMED = 4


def peak_line(costs: Priced, metric: str) -> str:
    """Return which op holds the peak and what is alive then, to be added to the peak."""
    if not len(costs.workload):
        return ""
    row = peak_row(costs.models[metric], costs.workload)
    text = f" at {costs.workload.layers[row]!r} ({costs.workload.kinds[row]})"
    held = alive(costs.models[metric], costs.workload, row)
    shown = [f"{label} {engineering(size, 'B')}" for label, size in held[:_MOST_NAMED]]
    shown += [f"{len(held) - _MOST_NAMED} more"] if len(held) > _MOST_NAMED else []
    return f"{text}, alive: {', '.join(shown)}" if shown else text


def peak(costs: Priced, metric: str) -> dict[str, object]:
    """Return the layer that holds the peak, and the bytes of all that is alive then."""
    row = peak_row(costs.models[metric], costs.workload)
    held = alive(costs.models[metric], costs.workload, row)
    return {
        "layer": costs.workload.layers[row],
        "alive": [{"name": name, "bytes": size} for name, size in held],
    }


def memory_lines(costs: Priced) -> list[tuple[str, str]]:
    """Return (name, text) for each memory that has to hold something, and for each limit."""
    lines = []
    for name, memory in costs.platform.memories.items():
        used = [_used(costs, what) for what in memory.holds]
        if used:
            lines.append((name, _fits(memory, math.fsum(used), " and ".join(memory.holds))))
    return lines + [(limit.name, _limit(costs, limit)) for limit in costs.platform.limits]


def _used(costs: Priced, what: str) -> float:
    """Bytes of the weights, or of the activations at their peak."""
    return weight_bytes(costs) if what == "weights" else _activation_bytes(costs)


def weight_bytes(costs: Priced) -> float:
    """Return the bytes of the weights, shared ones once, at the bits of the priced rows."""
    bytes_read = derived(costs.workload, costs.plan.bits, "w_bytes").nan_to_num()
    once = costs.workload.column("w_once").detach().cpu()
    runs = costs.workload.column("weight").detach().cpu() > 0
    return float((bytes_read * once * runs).sum())


def _activation_bytes(costs: Priced) -> float:
    for name, metric in costs.platform.metrics.items():
        if metric.reduce == "peak_live":
            return _total(costs, name) * float(metric.unit.value)
    return math.nan


def _total(costs: Priced, metric: str) -> float:
    """A metric's total in its unit, computed where the report does not have it."""
    if metric in costs.totals:
        return costs.totals[metric]
    first = next(iter(costs.models.values()))
    model = CostModel(costs.platform, metric, place_by=first.place_by, on_unsupported="warn")
    try:
        with no_own_warnings():
            return float(model.total(costs.workload).detach())
    except HwcostError:
        return math.nan


def _fits(memory: Memory, used: float, what: str) -> str:
    size = float(memory.size.value)
    if math.isnan(used):
        return f"{engineering(size, 'B')}, {what} not known"
    verdict = "fits" if used <= size else "DOES NOT FIT"
    return f"{engineering(used, 'B')} of {engineering(size, 'B')} {what}: {verdict}"


def _limit(costs: Priced, limit: Limit) -> str:
    names = {s.name for s in limit.condition.free_symbols}
    values: dict[sympy.Basic, sympy.Basic] = dict(costs.platform.numbers())
    for name in names & set(costs.platform.metrics):
        total = _total(costs, name)
        if math.isnan(total):
            return f"{limit.text}: not known"
        scale = costs.platform.metrics[name].unit.value
        values[symbol(name)] = sympy.Rational(total) * sympy.Rational(
            scale.numerator, scale.denominator
        )
    met = limit.condition.xreplace(values)
    return f"{limit.text}: {'met' if met == sympy.true else 'NOT MET'}"
