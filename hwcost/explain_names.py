"""What the names in an op entry's formula stand for: let formulas, aliases, params, sources."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import sympy

from hwcost.formula import symbol
from hwcost.ops import DERIVED
from hwcost.platform import Engine, Entry, Param, Platform


@dataclass(frozen=True, eq=False)
class Names:
    """The names of one entry.

    Attributes:
        lets: name -> (text in the file, formula with sizes of the row's kind), used ones only.
        alias: the kind that the entry is priced as, empty if its own.
        replaced: size of that kind -> what stands in its place.
        given: those of them that the file names.
    """

    lets: Mapping[str, tuple[str, sympy.Expr]]
    alias: str = ""
    replaced: Mapping[str, sympy.Expr] = field(default_factory=dict)
    given: tuple[str, ...] = ()

    def labelled(self, expr: sympy.Expr, but: str = "") -> sympy.Expr:
        """Return a formula with the names of let formulas in their place, that of ``but`` not."""
        named = {e: symbol(n) for n, (_, e) in self.lets.items() if n != but and e.args}
        # Dividing by a where() divides its branches.
        named |= {1 / e: 1 / s for e, s in named.items()}
        return expr.xreplace(named)

    @cached_property
    def inner(self) -> dict[sympy.Symbol, sympy.Expr]:
        """Name of a let formula -> the formula, labelled."""
        return {symbol(n): self.labelled(e, but=n) for n, (_, e) in self.lets.items() if e.args}


def names_of(platform: Platform, entry: Entry) -> Names:
    """Return what the names in an entry's formula stand for."""
    alias = entry.alias
    swap = {} if alias is None else {symbol(n): expr for n, expr in alias.sizes.items()}
    parts = {} if entry.tile is None else dict(entry.tile.parts)
    text = " ".join([entry.text, *(text for text, _ in parts.values())])
    used = _used(text, {name: let.text for name, let in platform.lets.items()})
    lets = {
        name: (let.text, let.expr.xreplace(swap))
        for name, let in platform.lets.items()
        if name in used
    } | parts
    return Names(lets) if alias is None else Names(lets, alias.kind, alias.sizes, alias.given)


def _used(text: str, texts: Mapping[str, str]) -> set[str]:
    """Names of let formulas in a text, and in those formulas themselves."""
    found: set[str] = set()
    pending = [text]
    while pending:
        words = set(re.findall(r"[A-Za-z_]\w*", pending.pop()))
        new = (words & set(texts)) - found
        found |= new
        pending += [texts[name] for name in new]
    return found


def derived_used(expr: sympy.Basic) -> list[str]:
    """Return the derived sizes (``macs``, ...) that a formula reads."""
    return sorted(s.name for s in expr.free_symbols if s.name in DERIVED)


def params_of(platform: Platform, engine: Engine | None) -> dict[str, Param]:
    """Return the params that formulas of an engine see, its own first."""
    return {**platform.params, **(engine.params if engine else {})}


def param_line(param: Param, sources: Mapping[str, str]) -> str:
    """Return a param's value, error, meaning and source, a source of the file by its name."""
    error = f" ±{100 * param.uncertainty:.2g} %" if param.uncertainty else ""
    note = f", {param.note}" if param.note else ""
    return f"{param.quantity.text}{error}{note} [{source_name(param.source, sources)}]"


def source_name(citation: str, sources: Mapping[str, str]) -> str:
    """Return the name that a platform gives to a citation, else the citation."""
    return next((name for name, text in sources.items() if text == citation), citation)
