"""Op entries of an engine: parsed, checked against their kinds' sizes, aliases written out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import sympy
from sympy.logic.boolalg import Boolean, BooleanFalse

from hwcost.definitions import Definitions
from hwcost.derived import derived_exprs
from hwcost.dimensions import dimension_of
from hwcost.errors import DescriptorError, FormulaError, did_you_mean
from hwcost.formula import Scope, parse, parse_condition, symbol
from hwcost.ops import DERIVED, KINDS, SIZES, defaults, kind_sizes
from hwcost.platform import Alias, Entry
from hwcost.schema import DefaultSpec, OpSpec
from hwcost.tile import Tile, op_form
from hwcost.tile_entries import check_beside, make_tile, op_cycles
from hwcost.units import Dimension, parse_unit

_OUTCOMES = ("cycles", "as_", "free", "unsupported")


@dataclass(frozen=True)
class EntryMaker:
    """Turns the op entries of one engine into values.

    Attributes:
        scope: names and tables that the engine's formulas may read.
        known: what the file has defined.
    """

    scope: Scope
    known: Definitions

    def entries(self, spec: OpSpec, at: str) -> list[Entry]:
        """Return one entry for each kind that a non-alias spec matches."""
        _one_outcome(spec)
        kinds = [spec.match] if isinstance(spec.match, str) else spec.match
        where = self._condition(spec.where)
        cycles = None if spec.cycles is None else self._formula(spec.cycles, "cycles", "cycle")
        scratch = None if spec.scratch is None else self._formula(spec.scratch, "scratch", "B")
        reserved = {n: self._formula(f, "reserved", "B") for n, f in spec.reserved.items()}
        made = []
        self.known.check_no_tile(where)
        for kind in kinds:
            tile = (
                None if cycles is None else make_tile(spec, kind, cycles, self._formula, self.known)
            )
            whole = cycles if tile is None else op_cycles(tile)
            need = None if tile is None else tile.bytes
            for expr in (where, whole, scratch, *reserved.values(), need):
                if expr is not None:
                    _check_sizes(expr, kind)
                    self._check_tile(expr, kind, tile)
            made.append(
                Entry(
                    kind=kind,
                    where=_with_depthwise(where, kind),
                    conditions=_conditions(where),
                    at=at,
                    text=_text(spec, tile),
                    cycles=whole,
                    free=spec.free or "",
                    unsupported=spec.unsupported or "",
                    scratch=scratch,
                    reserved=reserved,
                    in_place=spec.in_place,
                    note=spec.note or "",
                    source=spec.source or "",
                    tile=tile,
                )
            )
        return made

    def aliases(self, spec: OpSpec, entries: Mapping[str, Sequence[Entry]], at: str) -> list[Entry]:
        """Return the entries of another kind with their sizes replaced, as ``as`` asks for."""
        _one_outcome(spec)
        assert spec.as_ is not None
        target = spec.as_.get("match")
        if not isinstance(target, str) or target not in KINDS:
            hint = did_you_mean(str(target), KINDS)
            raise DescriptorError(f"'as' needs match: KIND; {target!r} is not a kind of op{hint}")
        if not entries[target]:
            raise DescriptorError(
                f"'as' refers to {target!r}, which this engine has no formula for"
            )
        kinds = [spec.match] if isinstance(spec.match, str) else spec.match
        where = self._condition(spec.where)
        made = []
        for kind in kinds:
            _check_sizes(where, kind)
            sizes = self._replacements(spec.as_, target, kind)
            alias = Alias(target, sizes, tuple(name for name in spec.as_ if name != "match"))
            for entry in entries[target]:
                renamed = _renamed(entry, kind, where, alias, at)
                if not isinstance(renamed.where, BooleanFalse):
                    made.append(renamed)
        return made

    def defaults(self, spec: DefaultSpec, at: str) -> dict[str, Entry]:
        """Return the fallback entry of every kind that has the sizes it reads."""
        cycles = self._formula(spec.cycles, "cycles", "cycle")
        self.known.check_no_tile(cycles)
        made = {}
        for kind in KINDS:
            if kind != "unknown" and not _missing_sizes(cycles, kind):
                made[kind] = Entry(
                    kind,
                    sympy.true,
                    0,
                    at,
                    str(spec.cycles),
                    cycles,
                    note=spec.note or "",
                    source=spec.source or "",
                )
        return made

    def _formula(self, text: str | float, key: str, unit: str) -> sympy.Expr:
        expr = parse(text, self.scope)
        counts_bytes = unit == "B" and dimension_of(expr, self.known.dims) == Dimension.none()
        if not counts_bytes:
            self.known.check_dimension(expr, parse_unit(unit).dimension, key)
        return expr

    def _check_tile(self, expr: sympy.Basic, kind: str, tile: Tile | None) -> None:
        """Check that a formula reads only the sizes of tiles that there are."""
        if tile is None:
            self.known.check_no_tile(expr)
            return
        for name in self.known.tile_names(expr):
            if symbol(name) not in tile.names:
                known = ", ".join(s.name for s in tile.names)
                raise FormulaError(f"a tile of {kind!r} has no {name!r}; known: {known}")
        if symbol("batch") in expr.free_symbols:
            raise FormulaError("a tile is one of one sample; its formulas may not read 'batch'")

    def _condition(self, text: str | None) -> Boolean:
        if text is None:
            return sympy.true
        condition = parse_condition(text, self.scope)
        dimension_of(condition, self.known.dims)
        names = {s.name for s in condition.free_symbols}
        wrong = names & {"weight", "w_once", "bias_once"}
        if wrong:
            raise FormulaError(f"'where' reads {min(wrong)!r}; it may read sizes, bits and params")
        return condition

    def _replacements(
        self, spec: Mapping[str, str | float], target: str, kind: str
    ) -> dict[str, sympy.Expr]:
        usual, own = defaults(), kind_sizes(kind)
        replaced: dict[str, sympy.Expr] = {
            size: sympy.Rational(str(usual[size]))
            for size in KINDS[target].sizes
            if size not in own and size in usual
        }
        for size, value in spec.items():
            if size == "match":
                continue
            if size not in KINDS[target].sizes:
                hint = did_you_mean(size, KINDS[target].sizes)
                raise DescriptorError(f"'as': {target!r} has no size {size!r}{hint}")
            expr = parse(value, self.scope)
            _check_sizes(expr, kind)
            replaced[size] = expr
        return replaced


def _one_outcome(spec: OpSpec) -> None:
    check_beside(spec)
    given = [name.rstrip("_") for name in _OUTCOMES if getattr(spec, name) is not None]
    if len(given) != 1:
        found = " and ".join(given) or "none of them"
        raise DescriptorError(
            f"an op entry has exactly one of cycles, as, free, unsupported; found {found}"
        )
    if spec.cycles is None and (spec.in_place or spec.reserved):
        key = "in_place" if spec.in_place else "reserved"
        raise DescriptorError(f"{key!r} goes with 'cycles'; found {given[0]!r}")


def _text(spec: OpSpec, tile: Tile | None) -> str:
    if tile is None:
        return "" if spec.cycles is None else str(spec.cycles)
    return op_form(tile.parts, tile.overlap)


def _renamed(entry: Entry, kind: str, where: Boolean, alias: Alias, at: str) -> Entry:
    sizes = {symbol(name): expr for name, expr in alias.sizes.items()}

    # All at once, so that {m: k, k: m} swaps.
    def swap(expr: sympy.Basic) -> sympy.Basic:
        return expr.xreplace(sizes)

    cycles = None if entry.cycles is None else swap(entry.cycles)
    scratch = None if entry.scratch is None else swap(entry.scratch)
    reserved = {name: swap(expr) for name, expr in entry.reserved.items()}
    tile = None if entry.tile is None else entry.tile.renamed(kind, sizes)
    for expr in (cycles, scratch, *reserved.values(), *(() if tile is None else (tile.need,))):
        whole = expr if expr is None or tile is None else tile.without(expr)
        missing = [] if whole is None else _missing_sizes(whole, kind)
        if missing:
            raise DescriptorError(
                f"'as': the formula of {entry.kind!r} reads {missing[0]!r}, which {kind!r} lacks"
            )
    return replace(
        entry,
        kind=kind,
        where=sympy.And(swap(entry.where), _with_depthwise(where, kind)),
        conditions=entry.conditions + _conditions(where),
        at=at,
        cycles=cycles,
        scratch=scratch,
        reserved=reserved,
        alias=alias,
        tile=tile,
    )


def _missing_sizes(expr: sympy.Basic, kind: str) -> list[str]:
    known = {*kind_sizes(kind), *DERIVED}
    reads = {s.name for s in expr.free_symbols}
    return sorted(n for n in reads if n in SIZES and n not in known)


def _check_sizes(expr: sympy.Basic, kind: str) -> None:
    missing = _missing_sizes(expr, kind)
    if missing:
        known = ", ".join(KINDS[kind].sizes)
        raise FormulaError(f"{kind!r} has no size {missing[0]!r}; known: {known}")


def _conditions(where: Boolean) -> int:
    if where == sympy.true:
        return 0
    return len(where.args) if isinstance(where, sympy.And) else 1


def _with_depthwise(where: Boolean, kind: str) -> Boolean:
    return where.xreplace({symbol("depthwise"): derived_exprs(kind)[symbol("depthwise")]})
