"""What is alive in activation memory while an op runs."""

from hwcost.costmodel import CostModel
from hwcost.explain_row import Row
from hwcost.explain_text import Section, quantity_text
from hwcost.memory import alive_at, reserved_bytes
from hwcost.memorycost import MemoryMetric
from hwcost.workload import Workload


def peak_row(model: CostModel, workload: Workload) -> int:
    """Return the first row of the op while which most bytes are alive.

    Args:
        model: one of a ``peak_live`` metric.
    """
    op = MemoryMetric(model).peak(workload).op
    return int((workload.structure.ops == op).nonzero()[0, 0])


def alive(model: CostModel, workload: Workload, row: int) -> list[tuple[str, float]]:
    """Return (what, bytes) of all that is alive while a row's op runs, largest first.

    What an op in place writes over its input counts once, in the input.

    Args:
        model: one of a ``peak_live`` metric.
    """
    memory, structure = MemoryMetric(model), workload.structure
    op, bits = int(structure.ops[row]), model.plan(workload).bits["a_bits"] / 8
    weight = workload.column("weight").detach()
    out_bytes, in_place = memory.out_bytes(workload).detach(), memory.in_place(workload)
    held = alive_at(structure, op, out_bytes, bits, weight, in_place)
    for name, used in memory.reserved(workload).items():
        held.append((f"buffer {name}", float(reserved_bytes(structure, used.detach(), weight))))
    scratch = memory.scratch(workload)
    if scratch is not None:
        own = (scratch.detach() * weight)[structure.ops == op]
        held.append(("working memory", float(own.sum())))
    return sorted((pair for pair in held if pair[1] > 0), key=lambda pair: -pair[1])


def _overwrites(row: Row) -> list[tuple[str, str]]:
    """Return what the row's op writes over its input, for an op in place."""
    over = MemoryMetric(row.model).overwritten(row.workload).detach()
    size = float(over[int(row.workload.structure.ops[row.index])])
    return [("in place", f"{quantity_text(size, 'B')} of the input overwritten")] if size else []


def memory_sections(row: Row) -> list[Section]:
    """Return the sections for ``peak_live``: what is alive while the op runs, and the peak."""
    unit, costs = row.model.unit, row.model.rows(row.workload).detach()
    peak = peak_row(row.model, row.workload)
    now, most = float(costs[row.index]), float(costs[peak])
    holds = now == most
    where = "this op holds it" if holds else f"held by layer {row.workload.layers[peak]!r}"
    lines = [("now", quantity_text(now, unit)), ("peak", f"{quantity_text(most, unit)}, {where}")]
    held = alive(row.model, row.workload, row.index)
    lines += _overwrites(row)
    parts = [(quantity_text(size, "B"), _named(name)) for name, size in held]
    return [Section("Alive", lines), Section("Made of", parts)]


def _named(name: str) -> str:
    known = name in ("input", "working memory") or name.startswith("buffer ")
    return name if known else f"output of {name!r}"
