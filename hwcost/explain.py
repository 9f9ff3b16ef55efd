"""Why a layer costs what it does, and a metric's formulas as LaTeX."""

from collections.abc import Sequence

import sympy

from hwcost.costmodel import CostModel
from hwcost.explain_costs import cost_sections
from hwcost.explain_memory import memory_sections
from hwcost.explain_row import Row
from hwcost.explain_sizes import sizes_text
from hwcost.explain_text import Section, sections_text
from hwcost.formula import symbol
from hwcost.offers import FREE, UNSUPPORTED
from hwcost.platform import Entry
from hwcost.tile import Tile
from hwcost.workload import Workload


def explain(model: CostModel, workload: Workload, layer: str, width: int | None = None) -> str:
    """Return why a layer costs what it does: formula, numbers, sources, terms, maxima.

    Args:
        width: characters of a line; None leaves lines as long as they are.

    Raises:
        UnknownName: no such layer.
    """
    blocks: dict[str, list[int]] = {}
    for index in workload.rows_of(layer):
        row = Row.of(model, workload, index)
        blocks.setdefault(_block(row, width), []).append(index)
    texts = []
    for number, (text, rows) in enumerate(blocks.items(), 1):
        several = f"{number} of {len(blocks)} ops of layer {layer!r}" if len(blocks) > 1 else ""
        calls = f"{len(rows)} calls that cost the same" if len(rows) > 1 else ""
        head = ", ".join(part for part in (several, calls) if part)
        texts.append(f"({head})\n{text}" if head else text)
    return "\n\n".join(texts)


def _block(row: Row, width: int | None) -> str:
    return sections_text(_title(row), _sections(row), width)


def _title(row: Row) -> str:
    alike = row.function.startswith(row.kind)
    names = [n for n in ("" if alike else row.kind, row.function) if n]
    what = f"{', '.join(names)}, {sizes_text(row.kind, row.numbers)}"
    return f"{row.layer or '(model)'} ({what}): {row.model.metric.name} on {row.platform.name}"


def _sections(row: Row) -> Sequence[Section]:
    if row.model.metric.reduce is not None:
        return memory_sections(row)
    if row.status == UNSUPPORTED:
        return [Section("No price", [("", row.plan.problems.get(row.index, "no formula"))])]
    if row.status == FREE:
        entry = row.entry
        reason = entry.free if entry else ""
        where = f" ({entry.at})" if entry else ""
        return [Section("Free", [("", f"{row.platform.name} prices it at 0: {reason}{where}")])]
    return cost_sections(row)


def latex(model: CostModel) -> str:
    """Return the metric's formulas as an ``align*`` block, those of each engine and kind below."""
    metric, lines = model.metric, []
    name = rf"\mathrm{{{_tex_word(metric.name)}}}"
    formula = metric.row if metric.row is not None else metric.op
    if formula is None:
        lines.append(
            rf"{name} &= \max_{{\mathrm{{op}}}} \sum_{{\mathrm{{alive}}}} \mathrm{{bytes}}"
        )
    else:
        lines.append(f"{name} &= {_tex(formula)}")
    if model.by_engine:
        for engine in model.platform.engines.values():
            for kind, entries in engine.entries.items():
                lines += [_tex_entry(engine.name, kind, entry) for entry in entries]
            lines += [_tex_entry(engine.name, kind, e) for kind, e in engine.default.items()]
    body = " \\\\\n".join(line for line in lines if line)
    return f"\\begin{{align*}}\n{body}\n\\end{{align*}}\n"


def _tex_entry(engine: str, kind: str, entry: Entry) -> str:
    if entry.cycles is None:
        return ""
    condition = "" if entry.where == sympy.true else rf" \quad\text{{if }} {_tex(entry.where)}"
    what = rf"\mathrm{{cycles}}_{{\mathrm{{{_tex_word(engine)},\,{_tex_word(kind)}}}}}"
    tile = "" if entry.tile is None else _tex_tile(entry.cycles, entry.tile)
    return f"{what} &= {_tex(entry.cycles)}{condition}{tile}"


def _tex_tile(cycles: sympy.Expr, tile: Tile) -> str:
    """The names of tiles that a formula reads, a line for each."""
    shown = tile.shown
    read = [name for name in shown if symbol(name) in cycles.free_symbols]
    lines = (f"{_tex_symbol(name)} &= {_tex(shown[name])}" for name in read)
    return "".join(" \\\\\n" + line for line in lines)


def _tex(expr: sympy.Basic) -> str:
    names = {s: _tex_symbol(s.name) for s in expr.free_symbols}
    return str(sympy.latex(expr, symbol_names=names, mul_symbol="dot"))


def _tex_symbol(name: str) -> str:
    """``kh`` as upright text, ``w_bits`` with a subscript."""
    head, *rest = name.split("_", 1)
    text = rf"\mathrm{{{head.replace('.', ' ')}}}"
    return text + (rf"_{{\mathrm{{{_tex_word(rest[0])}}}}}" if rest else "")


def _tex_word(word: str) -> str:
    return word.replace("_", r"\_")
