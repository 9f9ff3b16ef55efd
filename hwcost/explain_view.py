"""The formula of a row as its author wrote it, with the value of each name in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import sympy

from hwcost.derived import derived_exprs
from hwcost.explain_names import Names, derived_used, names_of
from hwcost.explain_row import Row
from hwcost.explain_tree import value_of
from hwcost.formula import symbol
from hwcost.ops import KINDS
from hwcost.tile_entries import op_formula

Numbers = Mapping[sympy.Symbol, sympy.Expr]


@dataclass(frozen=True, eq=False)
class View:
    """The formula that reads the row's sizes: its cycles, or a metric over sizes alone.

    Attributes:
        text: as in the file.
        written: over sizes, with all names written out.
        formula: over sizes and the names of let formulas and derived sizes.
        values: exact numbers of sizes, params, let formulas and derived sizes, for one sample.
        inner: name of a let formula or derived size -> what it stands for.
        names: what the names of an op entry stand for, None for a metric over sizes.
        tile: names of tiles that the formula reads -> what they stand for.
    """

    text: str
    written: sympy.Expr
    formula: sympy.Expr
    values: Numbers
    inner: Numbers
    names: Names | None
    tile: Numbers = field(default_factory=dict)

    @property
    def value(self) -> sympy.Expr:
        """The formula's exact value for one sample."""
        return value_of(self.formula, self.values)

    @property
    def reads(self) -> set[str]:
        """Names of the sizes and params that the formula reads."""
        exprs = (self.written, *self.tile.values())
        return {s.name for expr in exprs for s in expr.free_symbols}


def view_of(row: Row) -> View:
    """Return the view of a row that a formula prices."""
    entry, engine, metric = row.entry, row.engine, row.model.metric
    derived = derived_exprs(row.kind)
    if entry is None or engine is None or entry.cycles is None:
        assert metric.row is not None
        inner = {symbol(n): derived[symbol(n)] for n in derived_used(metric.row)}
        values = _with(dict(row.values) | row.platform.numbers(), inner)
        return View(metric.text, metric.row.xreplace(derived), metric.row, values, inner, None)
    names = names_of(row.platform, entry)
    inner = {symbol(n): derived[symbol(n)] for n in derived_used(entry.cycles)} | names.inner
    values = dict(row.values) | row.platform.numbers(engine)
    if per_sample(row):
        values[symbol("batch")] = sympy.Integer(1)
    for name, expr in names.replaced.items():
        values.setdefault(symbol(name), value_of(expr, values))
    values = _with(values, {s: derived[s] for s in inner if s in derived})
    tile = {} if entry.tile is None else entry.tile.names
    values = _with(values, tile)
    lets = {symbol(n): expr for n, (_, expr) in names.lets.items()}
    values = _with(values, {s: expr.xreplace(derived) for s, expr in lets.items()})
    written = entry.cycles.xreplace(derived)
    if entry.tile is None:
        return View(entry.text, written, names.labelled(entry.cycles), values, inner, names)
    read = {s: expr for s, expr in tile.items() if s in written.free_symbols}
    formula = op_formula(entry.tile, {part: symbol(part) for part in entry.tile.parts})
    return View(entry.text, written, formula, values, inner, names, read)


def per_sample(row: Row) -> bool:
    """Whether the row's cycles are those of one sample times the batch."""
    entry = row.entry
    if entry is None or entry.cycles is None or "batch" not in KINDS[row.kind].sizes:
        return False
    return symbol("batch") not in entry.cycles.free_symbols


def _with(values: Numbers, exprs: Numbers) -> dict[sympy.Symbol, sympy.Expr]:
    """``values`` and those of formulas over them; what cannot be computed is left out."""
    known = dict(values)
    for name, expr in exprs.items():
        if expr.free_symbols <= set(values):
            known[name] = value_of(expr, values)
    return known
