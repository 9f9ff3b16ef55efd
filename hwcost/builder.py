"""From the checked keys of a platform file to parsed formulas and SI numbers."""

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

from hwcost.definitions import PARAM, Definitions
from hwcost.descriptor import Document
from hwcost.dimensions import dimension_of, require
from hwcost.entries import EntryMaker
from hwcost.errors import DescriptorError, UnitError, did_you_mean
from hwcost.formula import Scope, Table, TableLookup, check_name, make_table, parse, symbol
from hwcost.metrics import MetricMaker
from hwcost.ops import KINDS, SIZES
from hwcost.overlap import check_overlaps
from hwcost.platform import Engine, Entry, Let, Memory, Param, Platform
from hwcost.points import PointMaker, calibration, chosen_point
from hwcost.schema import EngineSpec, ParamSpec, PlatformSpec, TableSpec
from hwcost.units import Dimension, Quantity, parse_quantity, parse_unit

Loc = tuple[str | int, ...]


class Builder:
    """Builds one platform; each method turns one section of the file into values."""

    def __init__(self, document: Document, spec: PlatformSpec, point: str | None = None) -> None:
        self.document, self.spec, self.point = document, spec, point
        self.known = Definitions(document)
        if any(op.tile for engine in spec.engines.values() for op in engine.ops):
            self.known.claim_tiles()

    def platform(self) -> Platform:
        """Return the whole platform."""
        spec = self.spec
        params = self.params(spec.params, ("params",))
        memories = {name: self.memory(name) for name in spec.memories}
        self.known.tables.update({name: self.table(name, t) for name, t in spec.tables.items()})
        engine_params = {
            n: self.params(e.params, ("engines", n, "params")) for n, e in spec.engines.items()
        }
        lets = self.lets()
        engines = {
            name: self.engine(name, e, engine_params[name]) for name, e in spec.engines.items()
        }
        points = PointMaker(spec, self.known).points(params)
        point = chosen_point(spec.name, points, self.point)
        maker = MetricMaker(spec, self.known)
        metrics = {name: maker.metric(name, metric) for name, metric in spec.metrics.items()}
        maker.check_times(metrics)
        platform = Platform(
            name=f"{spec.name}@{point}" if point != next(iter(points), "") else spec.name,
            title=spec.title,
            status=spec.status,
            note=spec.note or "",
            sources=dict(spec.sources),
            params=params | points.get(point, {}),
            lets=lets,
            memories=memories,
            engines=engines,
            metrics=metrics,
            deploy=spec.deploy.model_dump() if spec.deploy else {},
            limits=tuple(maker.limit(name, text, metrics) for name, text in spec.limits.items()),
            checks=tuple(maker.check(i, c, metrics) for i, c in enumerate(spec.checks)),
            document=self.document,
            points=tuple(points),
            point=point,
            calibration=calibration(spec, self.known, metrics, tuple(points)),
        )
        for engine in engines.values():
            with self.known.at("engines", engine.name):
                for entries in engine.entries.values():
                    check_overlaps(entries, platform.numbers(engine))
                    reads = {s.name for entry in entries for s in entry.where.free_symbols}
                    for numbers in (n for n in points.values() if reads & n.keys()):
                        there = replace(platform, params=params | numbers)
                        check_overlaps(entries, there.numbers(engine))
        return platform

    def params(self, specs: Mapping[str, ParamSpec], loc: Loc) -> dict[str, Param]:
        """Return params by name; engines may redefine one with the same dimension."""
        params = {}
        for name, spec in specs.items():
            with self.known.at(*loc, name):
                self.known.claim(name, PARAM)
            with self.known.at(*loc, name, "value"):
                quantity = parse_quantity(spec.value)
                if quantity.value < 0 and quantity.dimension != Dimension.none():
                    raise DescriptorError(
                        f"{name!r} is {spec.value}; a physical quantity is not negative"
                    )
                if self.known.dims.setdefault(name, quantity.dimension) != quantity.dimension:
                    raise UnitError(
                        f"{name!r} is in {quantity.dimension}; elsewhere in {self.known.dims[name]}"
                    )
            self.known.names[name] = symbol(name)
            params[name] = Param(
                quantity,
                self.spec.sources.get(spec.source, spec.source),
                spec.note or "",
                spec.fit,
                self._bounds(name, spec, quantity, (*loc, name)),
                self._uncertainty(spec, (*loc, name)),
            )
        return params

    def _bounds(
        self, name: str, spec: ParamSpec, value: Quantity, loc: Loc
    ) -> tuple[Fraction, Fraction] | None:
        if spec.bounds is None:
            if spec.fit:
                with self.known.at(*loc, "fit"):
                    raise DescriptorError(f"{name!r} is to be fitted; give its bounds")
            return None
        with self.known.at(*loc, "bounds"):
            low, high = (parse_quantity(text) for text in spec.bounds)
            for bound in (low, high):
                require(bound.dimension, value.dimension, f"a bound of {name}")
            if low.value >= high.value:
                found = f"bounds are {low.text} and {high.text}; expected a lower and an upper one"
                raise DescriptorError(f"{name!r}: {found}")
            if not low.value <= value.value <= high.value:
                found = f"{spec.value} is not between {low.text} and {high.text}"
                raise DescriptorError(f"{name!r}: {found}")
            return low.value, high.value

    def _uncertainty(self, spec: ParamSpec, loc: Loc) -> float | None:
        if spec.uncertainty is None:
            return None
        with self.known.at(*loc, "uncertainty"):
            share = parse_quantity(spec.uncertainty)
            require(share.dimension, Dimension.none(), "uncertainty")
            if share.value < 0:
                raise DescriptorError(f"uncertainty is {spec.uncertainty}; expected 0 % or more")
            return float(share.value)

    def memory(self, name: str) -> Memory:
        """Return a memory, and make NAME.size known to formulas."""
        spec = self.spec.memories[name]
        with self.known.at("memories", name):
            check_name(name)
        with self.known.at("memories", name, "size"):
            size = parse_quantity(spec.size)
            require(size.dimension, parse_unit("B").dimension, f"{name}.size")
            if size.value <= 0:
                raise DescriptorError(f"{name!r} has size {spec.size}; expected more than 0 B")
        self.known.names[f"{name}.size"] = symbol(f"{name}.size")
        self.known.dims[f"{name}.size"] = size.dimension
        return Memory(size, tuple(spec.holds))

    def table(self, name: str, spec: TableSpec) -> type[TableLookup]:
        """Return the look-up function of a table."""
        with self.known.at("tables", name):
            self.known.claim(name, "a table")
        for axis in spec.axes:
            with self.known.at("tables", name, "axes", axis):
                if axis not in SIZES:
                    raise DescriptorError(f"axis {axis!r} is not a size{did_you_mean(axis, SIZES)}")
        axes = tuple(
            (axis, tuple(Fraction(str(v)) for v in values)) for axis, values in spec.axes.items()
        )
        with self.known.at("tables", name, "unit"):
            unit = parse_unit(spec.unit)
        with self.known.at("tables", name, "values"):
            values = _flat_values(spec.values, [len(points) for _, points in axes])
        return make_table(Table(name, axes, tuple(v * unit.value for v in values), unit.dimension))

    def lets(self) -> dict[str, Let]:
        """Return the shared sub-formulas, each parsed after those that it reads."""
        waiting = dict(self.spec.let)
        for name in waiting:
            with self.known.at("let", name):
                self.known.claim(name, "a let formula")
        lets: dict[str, Let] = {}
        while waiting:
            ready = [n for n, text in waiting.items() if not _mentions(str(text), waiting)]
            if not ready:
                with self.known.at("let", next(iter(waiting))):
                    raise DescriptorError(f"'let' formulas go in a circle: {', '.join(waiting)}")
            for name in ready:
                with self.known.at("let", name):
                    text = str(waiting.pop(name))
                    expr = parse(text, Scope(self.known.names, self.known.tables))
                    self.known.dims[name] = dimension_of(expr, self.known.dims)
                    self.known.names[name] = expr
                    lets[name] = Let(text, expr)
        return lets

    def engine(self, name: str, spec: EngineSpec, params: dict[str, Param]) -> Engine:
        """Return an engine with its entries sorted by kind."""
        with self.known.at("engines", name):
            check_name(name)
        visible = {**self.known.names}
        for param in _other_engines_params(self.spec, name):
            visible.pop(param, None)
        maker = EntryMaker(Scope(visible, self.known.tables), self.known)
        entries: dict[str, list[Entry]] = {kind: [] for kind in KINDS}
        for index, op in enumerate(spec.ops):
            if op.as_ is None:
                with self.known.at("engines", name, "ops", index):
                    for entry in maker.entries(
                        op, self.document.where(("engines", name, "ops", index))
                    ):
                        entries[entry.kind].append(entry)
        plain = {kind: tuple(e) for kind, e in entries.items()}
        for index, op in enumerate(spec.ops):
            if op.as_ is not None:
                with self.known.at("engines", name, "ops", index):
                    at = self.document.where(("engines", name, "ops", index))
                    for entry in maker.aliases(op, plain, at):
                        entries[entry.kind].append(entry)
        default = {}
        if spec.default is not None:
            with self.known.at("engines", name, "default"):
                default = maker.defaults(
                    spec.default, self.document.where(("engines", name, "default"))
                )
        for found in entries.values():
            found.sort(key=lambda entry: -entry.conditions)
        precision = spec.precision.model_dump() if spec.precision else {}
        return Engine(
            name=name,
            title=spec.title or "",
            precision={bits: tuple(values) for bits, values in precision.items()},
            params=params,
            entries={kind: tuple(found) for kind, found in entries.items()},
            default=default,
        )


def _flat_values(values: Any, shape: list[int]) -> list[Fraction]:
    """Nested lists of ``shape`` as one flat list, the last axis fastest."""
    if not shape:
        if isinstance(values, bool) or not isinstance(values, int | float):
            raise DescriptorError(f"{values!r} is not a number, or the table is nested too deeply")
        return [Fraction(str(values))]
    if not isinstance(values, list) or len(values) != shape[0]:
        found = len(values) if isinstance(values, list) else repr(values)
        raise DescriptorError(f"a list of {found} where the axis has {shape[0]} values")
    return [number for part in values for number in _flat_values(part, shape[1:])]


def _mentions(text: str, names: Mapping[str, Any]) -> bool:
    words = "".join(c if c.isalnum() or c == "_" else " " for c in text).split()
    return any(word in names for word in words)


def _other_engines_params(spec: PlatformSpec, engine: str) -> set[str]:
    """Params that only other engines have."""
    own = set(spec.params) | set(spec.engines[engine].params)
    return {p for e in spec.engines.values() for p in e.params} - own
