"""The sections about the formula of a row: text, numbers, terms, branches, rounding."""

import math
import re

import sympy

from hwcost.explain_names import source_name
from hwcost.explain_row import Row
from hwcost.explain_text import Section, decimal, filled, formula_text, quantity_text
from hwcost.explain_tree import Values, decisions, lookups, roundings, terms
from hwcost.explain_view import View, per_sample
from hwcost.ops import DERIVED, SIZES
from hwcost.platform import Entry


def formula_section(row: Row, view: View) -> Section:
    """Return the op entry that prices the row: where it stands, its text and its numbers."""
    entry = row.entry
    if entry is None or view.names is None:
        return Section("Formula", [])
    lines = [("from", _origin(row, entry))]
    lines += [("note", entry.note)] if entry.note else []
    if view.names.alias:
        lines.append(("priced as", _alias(view)))
    lines.append(("cycles", entry.text))
    lines += _inner(view)
    if view.inner or view.names.alias:
        lines.append(("written out", formula_text(view.written)))
    lines.append(("in numbers", filled(entry.text, texts(view.values))))
    lines.append(("is", quantity_text(float(view.value), "cycle") + _batch(row, view)))
    return Section("Formula", lines)


def _origin(row: Row, entry: Entry) -> str:
    source = f" [{source_name(entry.source, row.platform.sources)}]" if entry.source else ""
    condition = "" if entry.where == sympy.true else f", for ops where {formula_text(entry.where)}"
    fallback = ", the engine's default" if _is_default(row, entry) else ""
    return f"{entry.at}{source}{condition}{fallback}"


def _is_default(row: Row, entry: Entry) -> bool:
    return row.engine is not None and row.engine.default.get(row.kind) is entry


def _alias(view: View) -> str:
    assert view.names is not None
    whole = " ".join([view.text, *(text for text, _ in view.names.lets.values())])
    words = set(re.findall(r"\w+", whole))
    sizes = [
        f"{name} = {formula_text(expr)}"
        for name, expr in view.names.replaced.items()
        if name in words or name in view.names.given
    ]
    return f"{view.names.alias} with {', '.join(sizes)}" if sizes else view.names.alias


def _inner(view: View) -> list[tuple[str, str]]:
    """A line for each let formula and derived size: its text and value."""
    written = {} if view.names is None else {n: text for n, (text, _) in view.names.lets.items()}
    known = {s.name: s for s in view.values}
    names = [*written, *(s.name for s in view.inner if s.name in DERIVED)]
    return [
        (f"  {name}", f"{_text_of(name, written, view)} = {_shown(view.values[known[name]])}")
        for name in names
        if name in known
    ]


def _text_of(name: str, written: dict[str, str], view: View) -> str:
    inner = {s.name: expr for s, expr in view.inner.items()}
    return written[name] if name in written else formula_text(inner[name])


def _batch(row: Row, view: View) -> str:
    batch = row.numbers["batch"]
    if not per_sample(row) or not batch > 1:
        return ""
    whole = quantity_text(float(view.value) * batch, "cycle")
    return f" for one sample, {whole} for the batch of {batch:g}"


def texts(values: Values) -> dict[str, str]:
    """Return name -> number as text."""
    return {s.name: _shown(v) for s, v in values.items()}


def _shown(value: sympy.Basic) -> str:
    return decimal(value) if getattr(value, "is_number", False) else str(value)


def size_section(row: Row, view: View) -> Section:
    """Return each size that the formula reads: its value and meaning."""
    values = {s.name: v for s, v in row.values.items()}
    names = [n for n in SIZES if n in view.reads | ({"batch"} if per_sample(row) else set())]
    names = [n for n in names if n in values and not (n == "batch" and values[n] == 1)]
    return Section("Sizes", [(f"{n} = {_shown(values[n])}", SIZES[n].meaning) for n in names])


def table_section(row: Row, view: View) -> Section:
    """Return each table that a value was looked up in, the cell and the source."""
    lines = []
    for table, text in lookups(view.formula, view.values, view.inner):
        assert table.table is not None
        spec = row.platform.document.data["tables"][table.table.name]
        lines.append((table.table.name, f"{text} {spec['unit']} [{spec['source']}]"))
    return Section("Tables", lines)


def term_lines(expr: sympy.Expr, values: Values, unit: str, scale: float) -> list[tuple[str, str]]:
    """Return a line for each summand with its share; none where there is only one.

    Args:
        scale: one ``unit`` in SI units, which ``expr`` is in.
    """
    found = terms(expr, values)
    whole = math.fsum(term.value for term in found)
    if len(found) < 2 or not whole > 0:
        return []
    return [
        (f"{100 * t.value / whole:.3g} %", f"{quantity_text(t.value / scale, unit)}: {t.text}")
        for t in found
    ]


def decision_lines(view: View) -> list[tuple[str, str]]:
    """Return which side of each max, min and condition won."""
    return [("", line) for line in decisions(view.formula, view.values, view.inner)]


def rounding_lines(view: View) -> list[tuple[str, str]]:
    """Return what each ceil that rounds up leaves idle."""
    return [("", line) for line in roundings(view.formula, view.values, view.inner)]
