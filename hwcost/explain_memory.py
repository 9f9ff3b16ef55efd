"""What is alive in activation memory while an op runs."""

from hwcost.explain_row import Row, Section
from hwcost.explain_text import quantity_text
from hwcost.plan import Plan
from hwcost.workload import Workload


def alive(workload: Workload, plan: Plan, row: int) -> list[tuple[str, float]]:
    """Return (what, bytes) of each buffer that is alive while a row's op runs, largest first.

    Empty where the table has no schedule. Sizes are those of the trace.
    """
    buffers = workload.structure.buffers
    if buffers is None:
        return []
    op = int(workload.structure.ops[row])
    held = []
    for index in ((buffers.first <= op) & (op <= buffers.last)).nonzero().flatten().tolist():
        producer = int(buffers.producer[index])
        size = float(buffers.elements[index]) * _bits(workload, plan, producer) / 8
        held.append((_name(workload, producer, op), size))
    return sorted(held, key=lambda pair: -pair[1])


def _name(workload: Workload, producer: int, op: int) -> str:
    if producer < 0:
        return "network input"
    if producer == op:
        return "its output"
    layers = workload.layers
    return f"output of {layers[_first_row(workload, producer)]!r}"


def _first_row(workload: Workload, op: int) -> int:
    return int((workload.structure.ops == op).nonzero()[0, 0])


def _bits(workload: Workload, plan: Plan, producer: int) -> float:
    """Bits of what an op writes; the network's input has those of its first op's input."""
    if producer >= 0:
        return float(plan.bits["o_bits"][_first_row(workload, producer)])
    return float(plan.bits["a_bits"][0])


def memory_sections(row: Row) -> list[Section]:
    """Return the sections for ``peak_live``: what is alive while the op runs, and the peak."""
    unit, costs = row.model.unit, row.model.rows(row.workload).detach()
    peak = int(costs.nan_to_num(-1).argmax())
    now = float(costs[row.index])
    lines = [("alive now", quantity_text(now, unit))]
    where = "this op holds the peak" if peak == row.index else f"held by {row.workload.layers[peak]!r}"
    lines.append(("network's peak", f"{quantity_text(float(costs[peak]), unit)}, {where}"))
    held = alive(row.workload, row.plan, row.index)
    return [
        Section("Cost", lines),
        Section("Alive while it runs", [(quantity_text(size, "B"), what) for what, size in held]),
    ]
