"""The sections of an explanation of latency, energy and other metrics made of formulas."""

import warnings
from functools import partial

import torch

from hwcost.calibration import MeasuredError
from hwcost.calibration_reach import error_text, layer_error, total_error
from hwcost.costmodel import CostModel
from hwcost.errors import HwcostError, HwcostWarning
from hwcost.explain_formula import (
    decision_lines,
    formula_section,
    rounding_lines,
    size_section,
    table_section,
    term_lines,
)
from hwcost.explain_metric import (
    metric_section,
    metric_values,
    op_values,
    param_section,
    source_section,
    time_text,
)
from hwcost.explain_row import Row
from hwcost.explain_text import Section, quantity_text
from hwcost.explain_tile import tile_section
from hwcost.explain_tree import decisions
from hwcost.explain_view import View, view_of
from hwcost.formula import symbol
from hwcost.ops import KINDS
from hwcost.workload import Workload


def cost_sections(row: Row) -> list[Section]:
    """Return the sections for a row that a formula prices."""
    view = view_of(row)
    sections = [
        Section("Cost", _cost(row)),
        Section("Engine", _engines(row)),
        formula_section(row, view),
        tile_section(row, view),
        metric_section(row, view),
        size_section(row, view),
        param_section(row, view),
        table_section(row, view),
        *_terms(row, view),
        Section("Decided by", _decisions(row, view)),
        Section("Rounded up", rounding_lines(view)),
        Section("One more of a size adds, rounding averaged out", _slopes(row)),
    ]
    return [*sections, source_section(sections, dict(row.platform.sources))]


def _terms(row: Row, view: View) -> list[Section]:
    """The summands of the cycles, and those of the metric, each with its share."""
    metric = row.model.metric
    unit, scale = metric.unit.text, float(metric.unit.value)
    if view.names is None:
        return [Section("Terms", term_lines(view.written, view.values, unit, scale))]
    cycles = Section("Terms of the cycles", term_lines(view.formula, view.values, "cycle", 1))
    if metric.needs_ops:
        formula, values = metric.op, op_values(row)
    else:
        formula, values = metric.row, metric_values(row, view)
    lines = [] if formula is None else term_lines(formula, values, unit, scale)
    return [cycles, Section(f"Terms of {metric.name}", lines)]


def _decisions(row: Row, view: View) -> list[tuple[str, str]]:
    metric = row.model.metric
    lines = decision_lines(view)
    if metric.op is not None:
        times = partial(time_text, row)
        lines += [("", line) for line in decisions(metric.op, op_values(row), {}, times)]
    elif view.names is not None and metric.row is not None and not metric.needs_ops:
        lines += [("", line) for line in decisions(metric.row, metric_values(row, view), {})]
    return list(dict.fromkeys(lines))


def _cost(row: Row) -> list[tuple[str, str]]:
    unit, table, metric = row.model.unit, row.workload, row.model.metric.name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HwcostWarning)
        model = _quiet(row.model)
        whole, rows = model.total(table), model.rows(table).detach() * table.column("weight")
    cost, total = row.cost(), float(whole.detach())
    known = (row.platform, metric, table, row.plan)
    lines = [("this op", quantity_text(cost, unit) + _off(layer_error(*known, row.index)))]
    if row.numbers["weight"] != 1:
        lines.append(("times", f"{row.numbers['weight']:g} executions"))
    if total > 0:
        share = 100 * cost * row.numbers["weight"] / total
        error = None if row.plan.problems else total_error(*known, (rows / total).tolist())
        text = f"{quantity_text(total, unit)}{_off(error)}, of which this op is {share:.3g} %"
        lines.append(("network", text))
    return [*lines, ("status", row.platform.status)]


def _off(error: MeasuredError | None) -> str:
    return "" if error is None else f", {error_text(error)}"


def _quiet(model: CostModel) -> CostModel:
    """The same model, one that goes on where an op has no price."""
    return CostModel(
        model.platform, model.metric.name, place_by=model.place_by, on_unsupported="warn"
    )


def _engines(row: Row) -> list[tuple[str, str]]:
    if row.engine is None:
        return []
    others = [name for name in row.platform.engines if name != row.engine.name]
    title = f" ({row.engine.title})" if row.engine.title else ""
    if not others:
        return [(row.engine.name, f"the only engine{title}")]
    asked = row.workload.structure.engines[row.index] is not None
    by = row.model.place_by
    own = _on_engine(row, row.engine.name)
    why = "as the mapping asks" if asked else f"chosen, its {by} is least"
    return [(row.engine.name, f"{own}: {why}{title}")] + [(o, _on_engine(row, o)) for o in others]


def _on_engine(row: Row, engine: str) -> str:
    """What the row costs on an engine by the metric that places ops, or why it cannot run."""
    model = CostModel(row.platform, row.model.place_by)
    own = row.workload.slice(row.index, row.index + 1).with_engines(engine)
    one = Workload(own.structure, {n: c.detach() for n, c in own.changed.items()})
    try:
        with torch.no_grad():
            cost = float(model.rows(one)[0])
    except HwcostError as error:
        return f"cannot: {str(error).removeprefix(f'layer {row.layer!r}').lstrip(': ')}"
    bits = model.plan(one).bits
    return f"{quantity_text(cost, model.unit)} at w{bits['w_bits'][0]:g}a{bits['a_bits'][0]:g}"


def _slopes(row: Row) -> list[tuple[str, str]]:
    """What one more channel (row, token, ...) adds, along the line that ceil and floor round."""
    own = [n for n in (*KINDS[row.kind].extent, "positions") if symbol(n) in row.values]
    if row.numbers["groups"] > 1 and row.numbers["groups"] == row.numbers["cin"]:
        own.remove("cin")  # a depthwise convolution has one group for each channel
    if len(row.op_rows) > 1:
        return []
    grown = {n: row.alone.column(n).clone().requires_grad_() for n in own}
    with torch.enable_grad():
        cost = row.model.total(row.alone.with_columns(**grown))
    if not cost.requires_grad:
        return []
    cost.backward()
    slopes = {n: float(size.grad[0]) for n, size in grown.items() if size.grad is not None}
    unit = row.model.unit
    return [(n, f"{'+' * (s > 0)}{quantity_text(s, unit)}") for n, s in slopes.items() if s]
