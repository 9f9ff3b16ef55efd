"""The sections of an explanation of latency, energy and other metrics made of formulas."""

import math
import warnings

import sympy
import torch

from hwcost.costmodel import CostModel
from hwcost.derived import derived_exprs
from hwcost.errors import HwcostError, HwcostWarning
from hwcost.explain_names import Names, derived_used, names_of, param_line, params_of
from hwcost.explain_row import Row
from hwcost.explain_text import Section, decimal, formula_text, quantity_text, with_numbers
from hwcost.explain_tree import decisions, lookups, roundings, terms, value_of
from hwcost.formula import symbol
from hwcost.ops import DERIVED, KINDS, SIZES
from hwcost.workload import Workload


def cost_sections(row: Row) -> list[Section]:
    """Return the sections for a row that a formula prices."""
    formula = _formula(row)
    return [
        Section("Cost", _cost(row)),
        Section("Engine", _engines(row)),
        Section("Formula", _entry_lines(row)),
        Section(row.model.metric.name.capitalize(), _metric_lines(row)),
        Section("Sizes", _sizes(row, formula)),
        Section("Numbers of the hardware", _params(row)),
        Section("Table", _tables(row, formula)),
        Section("Terms", _terms(row)),
        Section("Decided by", [("", line) for line in decisions(formula, row.values)]),
        Section("Rounded up", [("", line) for line in roundings(formula, row.values)]),
        Section("One more", _slopes(row)),
    ]


def _formula(row: Row) -> sympy.Expr:
    """The formula that reads sizes: cycles of the row, or the metric itself."""
    entry, metric = row.entry, row.model.metric
    if entry is not None and entry.cycles is not None:
        return entry.row_cycles
    assert metric.row is not None
    return metric.row.xreplace(derived_exprs(row.kind))


def _cost(row: Row) -> list[tuple[str, str]]:
    unit = row.model.unit
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HwcostWarning)
        whole = _quiet(row.model).total(row.workload)
    cost, total = row.cost(), float(whole.detach())
    lines = [("this op", quantity_text(cost, unit))]
    if row.numbers["weight"] != 1:
        lines.append(("times", f"{row.numbers['weight']:g} executions"))
    if total > 0:
        share = 100 * cost * row.numbers["weight"] / total
        lines.append(
            ("network", f"{quantity_text(total, unit)}, of which this op is {share:.3g} %")
        )
    return lines


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


def _entry_lines(row: Row) -> list[tuple[str, str]]:
    entry, engine = row.entry, row.engine
    if entry is None or engine is None or entry.cycles is None:
        return []
    names = names_of(row.platform, engine, entry)
    lines = [("file", entry.at + _condition(row))]
    if entry.source:
        lines.append(("source", row.platform.sources.get(entry.source, entry.source)))
    lines += [("note", entry.note)] if entry.note else []
    if names.alias:
        sizes = ", ".join(f"{n} = {formula_text(e)}" for n, e in (names.replaced or {}).items())
        lines.append(("priced as", f"{names.alias} with {sizes}"))
    lines.append(("cycles", entry.text))
    lines += _inner_lines(row, names)
    if names.lets or names.alias:
        lines.append(("written out", formula_text(entry.cycles)))
    lines.append(("with numbers", with_numbers(_without_derived(row), row.values)))
    cycles = value_of(entry.row_cycles, row.values)
    lines.append(("is", f"{quantity_text(float(cycles), 'cycle')}{_batched(row)}"))
    return lines


def _condition(row: Row) -> str:
    entry = row.entry
    if entry is None or entry.where == sympy.true:
        return ""
    return f", for ops where {formula_text(entry.where)}"


def _without_derived(row: Row) -> sympy.Expr:
    """Cycles over sizes only, for all samples of the row."""
    assert row.entry is not None
    return row.entry.row_cycles


def _batched(row: Row) -> str:
    batch = row.numbers["batch"]
    per = f" for a batch of {batch:g}" if "batch" in KINDS[row.kind].sizes and batch > 1 else ""
    return per


def _inner_lines(row: Row, names: Names) -> list[tuple[str, str]]:
    """A line for each let formula and derived size that the formula reads."""
    assert row.entry is not None and row.entry.cycles is not None
    derived, values = derived_exprs(row.kind), row.values
    lines = []
    for name, (text, expr) in names.lets.items():
        value = value_of(expr.xreplace(derived), values)
        lines.append((f"  {name}", f"{text} = {_shown(value)}"))
    for name in derived_used(row.entry.cycles):
        expr = derived[symbol(name)]
        shown = formula_text(expr)
        lines.append(
            (
                f"  {name}",
                f"{shown} = {with_numbers(expr, values)} = {_shown(value_of(expr, values))}",
            )
        )
    return lines


def _shown(value: sympy.Basic) -> str:
    return decimal(value) if getattr(value, "is_number", False) else str(value)


def _metric_lines(row: Row) -> list[tuple[str, str]]:
    if row.model.metric.needs_ops:
        return _op_lines(row)
    metric = row.model.metric
    assert metric.row is not None
    values = _metric_values(row)
    reads = {s.name for s in metric.row.free_symbols}
    lines = [("formula", f"{metric.text}  ({metric.at})")]
    if "busy" in reads:
        busy = _latency_text(row, float(values[symbol("busy")]))
        lines.append(("  busy", f"the op's own latency, {busy}"))
    derived = {n: derived_exprs(row.kind)[symbol(n)] for n in derived_used(metric.row)}
    lines += [
        (f"  {name}", f"{formula_text(expr)} = {_shown(values[symbol(name)])}")
        for name, expr in derived.items()
    ]
    lines.append(("with numbers", formula_text(metric.row, _quantities(row, values))))
    lines.append(("is", quantity_text(row.cost(), metric.unit.text)))
    return lines


def _latency_text(row: Row, seconds: float) -> str:
    unit = row.platform.metric("latency").unit
    return quantity_text(seconds / float(unit.value), unit.text)


def _metric_values(row: Row) -> dict[sympy.Symbol, sympy.Expr]:
    """Everything that a row metric may read, in SI units."""
    values = dict(row.values)
    for name, expr in derived_exprs(row.kind).items():
        if expr.free_symbols <= set(row.values):
            values[name] = value_of(expr, row.values)
    values |= row.platform.numbers(row.engine)
    if row.entry is not None and row.entry.cycles is not None:
        values[symbol("cycles")] = value_of(row.entry.row_cycles, values)
        latency = row.platform.metrics.get("latency")
        if latency is not None and latency.row is not None:
            values[symbol("busy")] = value_of(latency.row, values)
    return values


def _quantities(row: Row, values: dict[sympy.Symbol, sympy.Expr]) -> dict[str, str]:
    """Name -> text with its unit: ``2,592 cycles``, ``175 MHz``."""
    texts = {s.name: _shown(v) for s, v in values.items()}
    texts |= {
        name: param.quantity.text for name, param in params_of(row.platform, row.engine).items()
    }
    texts |= {f"{name}.size": memory.size.text for name, memory in row.platform.memories.items()}
    if symbol("cycles") in values:
        texts["cycles"] = quantity_text(float(values[symbol("cycles")]), "cycle")
    if symbol("busy") in values:
        texts["busy"] = _latency_text(row, float(values[symbol("busy")]))
    return texts


def _op_lines(row: Row) -> list[tuple[str, str]]:
    """The metric of a whole op: how long each engine works on it, and how long it takes."""
    metric, structure = row.model.metric, row.workload.structure
    rows = (structure.ops == structure.ops[row.index]).nonzero().flatten().tolist()
    latency = CostModel(row.platform, "latency", place_by=row.model.place_by, on_unsupported="warn")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", HwcostWarning)
        times = latency.rows(row.workload) * row.workload.column("weight")
    busy = dict.fromkeys(row.platform.engines, 0.0)
    names = list(busy)
    for other in rows:
        engine = int(row.plan.engine[other])
        if engine >= 0 and not math.isnan(float(times[other])):
            busy[names[engine]] += float(times[other])
    parallel = latency.metric.engines == "max"
    span = max(busy.values(), default=0.0) if parallel else sum(busy.values())
    how = "the longest of them" if parallel else "their sum"
    unit = latency.unit
    lines = [("formula", f"{metric.text}  ({metric.at})")]
    lines += [
        (f"  busy_{n}", f"{quantity_text(t, unit)}, work of {n} on this op")
        for n, t in busy.items()
    ]
    lines.append(("  span", f"{quantity_text(span, unit)}, {how}"))
    if metric.row is not None:
        lines.append(("", f"once for each engine with its own params, then the {metric.engines}"))
    lines.append(
        ("is", quantity_text(float(row.model.rows(row.workload)[rows[0]]), metric.unit.text))
    )
    return lines


def _sizes(row: Row, formula: sympy.Basic) -> list[tuple[str, str]]:
    entry = row.entry
    reads = {s.name for s in formula.free_symbols}
    reads |= {s.name for s in entry.where.free_symbols} if entry else set()
    names = [name for name in SIZES if name in reads]
    values = {n: row.values.get(symbol(n)) for n in names}
    return [(f"{n} = {_shown(v)}", SIZES[n].meaning) for n, v in values.items() if v is not None]


def _params(row: Row) -> list[tuple[str, str]]:
    metric, platform = row.model.metric, row.platform
    exprs: list[sympy.Basic] = [e for e in (metric.row, metric.op) if e is not None]
    if row.entry is not None and row.entry.cycles is not None:
        exprs.append(row.entry.cycles)
    reads = {s.name for e in exprs for s in e.free_symbols}
    timed = any(n == "span" or n.startswith("busy") for n in reads)
    latency = platform.metrics.get("latency")
    if timed and latency is not None and latency.row is not None:
        reads |= {s.name for s in latency.row.free_symbols}
    engines = platform.engines.values() if metric.needs_ops else [row.engine]
    lines = []
    for engine in engines:
        for name, param in params_of(platform, engine).items():
            own = engine is not None and name in engine.params and len(platform.engines) > 1
            label = f"{engine.name}.{name}" if own and engine is not None else name
            if name in reads:
                lines.append((label, param_line(param)))
    return list(dict.fromkeys(lines))


def _tables(row: Row, formula: sympy.Basic) -> list[tuple[str, str]]:
    lines = []
    for table, text in lookups(formula, row.values):
        assert table.table is not None
        spec = row.platform.document.data["tables"][table.table.name]
        source = row.platform.sources.get(spec["source"], spec["source"])
        lines += [(table.table.name, f"{text} {spec['unit']}"), ("", f"[{source}]")]
    return lines


def _terms(row: Row) -> list[tuple[str, str]]:
    """The summands of the cycles (or of the metric), each with its share."""
    entry, engine = row.entry, row.engine
    labels: dict[sympy.Basic, sympy.Symbol] = {}
    unit = row.model.unit
    if entry is not None and engine is not None and entry.cycles is not None:
        labels = names_of(row.platform, engine, entry).labels
        unit = "cycle"
    found = terms(_formula(row), row.values, labels)
    whole = sum(term.value for term in found)
    if len(found) < 2 or not whole > 0:
        return []
    return [
        (f"{100 * term.value / whole:.3g} %", f"{quantity_text(term.value, unit)}: {term.text}")
        for term in found
    ]


def _slopes(row: Row) -> list[tuple[str, str]]:
    """What one more channel (row, token, ...) adds, along the line that ceil and floor round."""
    names = [n for n in (*KINDS[row.kind].extent, "positions") if symbol(n) in row.values]
    grown = {n: row.alone.column(n).clone().requires_grad_() for n in dict.fromkeys(names)}
    if not grown or row.model.metric.needs_ops:
        return []
    with torch.enable_grad():
        cost = row.model.total(row.alone.with_columns(**grown))
    if not cost.requires_grad:
        return []
    cost.backward()
    lines = []
    for name, size in grown.items():
        if size.grad is not None and name in SIZES and name not in DERIVED:
            slope, unit = float(size.grad[0]), row.model.unit
            sign = "+" if slope >= 0 else ""
            lines.append((name, f"{sign}{quantity_text(slope, unit)} on average over a tile"))
    return [line for line in lines if not line[1].startswith("+0 ")]
