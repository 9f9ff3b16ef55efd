"""The section about the metric: from cycles to seconds, joules and the like."""

import warnings

import sympy
import torch

from hwcost.costmodel import CostModel
from hwcost.derived import derived_exprs
from hwcost.errors import HwcostWarning
from hwcost.explain_formula import texts
from hwcost.explain_names import derived_used, param_line, params_of
from hwcost.explain_row import Row
from hwcost.explain_text import Section, filled, formula_text, quantity_text
from hwcost.explain_tree import value_of
from hwcost.explain_view import View
from hwcost.formula import symbol
from hwcost.platform import Engine

Numbers = dict[sympy.Symbol, sympy.Expr]


def metric_values(row: Row, view: View) -> Numbers:
    """Return what the formula of one row reads, in SI units: sizes, cycles, busy, params."""
    values = dict(view.values) | dict(row.values) | row.platform.numbers(row.engine)
    entry, latency = row.entry, row.platform.metrics.get("latency")
    if row.model.metric.row is not None:
        derived = derived_exprs(row.kind)
        for name in derived_used(row.model.metric.row):
            values[symbol(name)] = value_of(derived[symbol(name)], values)
    if entry is not None and entry.cycles is not None:
        values[symbol("cycles")] = value_of(entry.row_cycles, values)
        if latency is not None and latency.row is not None:
            values[symbol("busy")] = value_of(latency.row, values)
    return values


def metric_section(row: Row, view: View) -> Section:
    """Return the metric's formula, in numbers and with its value."""
    metric = row.model.metric
    title = metric.name.replace("_", " ").capitalize()
    lines = [("formula", f"{metric.text}  [{metric.at}]")]
    if metric.needs_ops:
        return Section(title, lines + _op_lines(row))
    if str(metric.row) == "cycles":
        return Section(title, [("is", "the cycles themselves")])
    values = metric_values(row, view)
    if "busy" in metric.reads:
        lines.append(("  busy", f"latency of the op, {time_text(row, values[symbol('busy')])}"))
    if view.names is None:
        lines += [
            (f"  {s.name}", f"{formula_text(expr)} = {texts(view.values)[s.name]}")
            for s, expr in view.inner.items()
            if s in view.values
        ]
    lines.append(("in numbers", filled(metric.text, _quantities(row, row.engine, values))))
    lines.append(("is", quantity_text(row.cost(), metric.unit.text)))
    return Section(title, lines)


def time_text(row: Row, seconds: sympy.Expr | float) -> str:
    """Return a time in SI units as text, in the unit of the platform's latency."""
    unit = row.platform.metric("latency").unit
    return quantity_text(float(seconds) / float(unit.value), unit.text)


def _quantities(row: Row, engine: Engine | None, values: Numbers) -> dict[str, str]:
    """Name -> text with its unit: ``2,592 cycles``, ``175 MHz``."""
    named = texts(values)
    named |= {n: param.quantity.text for n, param in params_of(row.platform, engine).items()}
    named |= {f"{n}.size": memory.size.text for n, memory in row.platform.memories.items()}
    for name in named:
        if name == "cycles":
            named[name] = quantity_text(float(values[symbol(name)]), "cycle")
        elif name == "span" or name.split("_")[0] == "busy":
            named[name] = time_text(row, values[symbol(name)])
    return named


def op_times(row: Row) -> tuple[dict[str, float], float]:
    """Return how long each engine works on the row's op, and how long the op takes; SI units."""
    platform = row.platform
    latency = CostModel(platform, "latency", place_by=row.model.place_by, on_unsupported="warn")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", HwcostWarning)
        times = latency.rows(row.workload) * row.workload.column("weight")
    scale, names = float(latency.metric.unit.value), list(platform.engines)
    busy = dict.fromkeys(names, 0.0)
    for other in row.op_rows:
        engine, time = int(row.plan.engine[other]), float(times[other])
        if engine >= 0 and time == time:
            busy[names[engine]] += time * scale
    parallel = latency.metric.engines == "max"
    return busy, max(busy.values(), default=0.0) if parallel else sum(busy.values())


def _op_lines(row: Row) -> list[tuple[str, str]]:
    """The metric of a whole op: the engines' times, then the formula in numbers."""
    metric = row.model.metric
    busy, span = op_times(row)
    parallel = row.platform.metric("latency").engines == "max"
    lines = [
        (f"  busy_{n}", f"{time_text(row, t)}, work of {n} on this op") for n, t in busy.items()
    ]
    if "span" in metric.reads:
        how = "the longest of them" if parallel else "their sum"
        lines.append(("  span", f"{time_text(row, span)}, {how}"))
    values = op_values(row)
    if metric.op is not None:
        lines.append(("in numbers", filled(metric.text, _quantities(row, None, values))))
    else:
        for engine in row.platform.engines.values():
            own = values | row.platform.numbers(engine)
            own[symbol("busy")] = values[symbol(f"busy_{engine.name}")]
            assert metric.row is not None
            value = float(value_of(metric.row, own)) / float(metric.unit.value)
            text = filled(metric.text, _quantities(row, engine, own))
            lines.append((f"  {engine.name}", f"{text} = {quantity_text(value, metric.unit.text)}"))
        lines.append(("", f"over the engines: {metric.engines}"))
    lines.append(("is", quantity_text(row.cost(), metric.unit.text)))
    return lines


def op_values(row: Row) -> Numbers:
    """Return what the formula of a whole op reads, in SI units."""
    busy, span = op_times(row)
    times = {f"busy_{name}": time for name, time in busy.items()} | {"span": span}
    return row.platform.numbers() | {symbol(n): sympy.Rational(t) for n, t in times.items()}


def param_section(row: Row, view: View) -> Section:
    """Return each number of the hardware that is read, with its unit and source."""
    metric, platform = row.model.metric, row.platform
    reads = view.reads | metric.reads
    latency = platform.metrics.get("latency")
    timed = any(n == "span" or n.split("_")[0] == "busy" for n in metric.reads)
    if timed and latency is not None:
        reads |= latency.reads
    engines = list(platform.engines.values()) if metric.needs_ops else [row.engine]
    lines = []
    for engine in engines:
        for name, param in params_of(platform, engine).items():
            own = engine is not None and name in engine.params and len(platform.engines) > 1
            label = f"{engine.name}.{name}" if own and engine is not None else name
            if name in reads:
                lines.append((label, param_line(param, platform.sources)))
    lines += [
        (f"{name}.size", memory.size.text)
        for name, memory in platform.memories.items()
        if f"{name}.size" in reads
    ]
    return Section("Numbers of the hardware", list(dict.fromkeys(lines)))


def source_section(sections: list[Section], sources: dict[str, str]) -> Section:
    """Return the citations whose names the sections mention."""
    text = " ".join(line for section in sections for _, line in section.lines)
    return Section("Sources", [(n, cite) for n, cite in sources.items() if f"[{n}]" in text])
