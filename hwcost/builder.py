"""From the checked keys of a platform file to parsed formulas and SI numbers."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import sympy

from hwcost.descriptor import Document
from hwcost.dimensions import dimension_of, require
from hwcost.entries import EntryMaker, ambiguities
from hwcost.errors import DescriptorError, UnitError, did_you_mean
from hwcost.formula import Scope, Table, check_name, make_table, parse, parse_condition, symbol
from hwcost.ops import DERIVED, KINDS, SIZES, kind_sizes
from hwcost.platform import Check, Engine, Entry, Limit, Memory, Metric, Param, Platform
from hwcost.schema import CheckSpec, EngineSpec, MetricSpec, ParamSpec, PlatformSpec, TableSpec
from hwcost.derived import size_dimensions
from hwcost.units import Dimension, Quantity, parse_quantity, parse_unit

Loc = tuple[str | int, ...]

#: Names that metric formulas may read beside sizes and params.
ROW_NAMES = ("cycles", "busy", "span")


class Builder:
    """Builds one platform; each method turns one section of the file into values."""

    def __init__(self, document: Document, spec: PlatformSpec) -> None:
        self.document, self.spec = document, spec
        self.dims: dict[str, Dimension] = dict(size_dimensions())
        self.names: dict[str, sympy.Basic] = {n: symbol(n) for n in (*SIZES, *DERIVED)}
        self.taken: dict[str, str] = {n: "a size" for n in (*SIZES, *DERIVED)}
        self.taken |= {n: "a name of metric formulas" for n in ROW_NAMES}

    @contextmanager
    def at(self, *loc: str | int) -> Iterator[None]:
        """Add file and line to an error that states only the fact."""
        try:
            yield
        except DescriptorError as error:
            raise type(error)(f"{self.document.where(loc)}: {error}") from None

    def platform(self) -> Platform:
        """Return the whole platform."""
        spec = self.spec
        params = self.params(spec.params, ("params",))
        memories = {name: self.memory(name) for name in spec.memories}
        self.tables = {name: self.table(name, table) for name, table in spec.tables.items()}
        engine_params = {n: self.params(e.params, ("engines", n, "params")) for n, e in spec.engines.items()}
        self.lets()
        engines = {name: self.engine(name, e, engine_params[name]) for name, e in spec.engines.items()}
        metrics = {name: self.metric(name, metric) for name, metric in spec.metrics.items()}
        self.latency_is_there(metrics)
        return Platform(
            name=spec.name,
            title=spec.title,
            status=spec.status,
            note=spec.note or "",
            sources=dict(spec.sources),
            params=params,
            memories=memories,
            engines=engines,
            metrics=metrics,
            deploy=spec.deploy.model_dump() if spec.deploy else {},
            limits=tuple(self.limit(name, text, metrics) for name, text in spec.limits.items()),
            checks=tuple(self.check(i, c, metrics) for i, c in enumerate(spec.checks)),
            document=self.document,
        )

    def claim(self, name: str, what: str) -> None:
        """Check a name that the file defines, and that nothing else has it."""
        check_name(name)
        if self.taken.setdefault(name, what) != what:
            raise DescriptorError(f"{what} is named {name!r}, which is {self.taken[name]}")

    def params(self, specs: Mapping[str, ParamSpec], loc: Loc) -> dict[str, Param]:
        """Return params by name; engines may redefine one with the same dimension."""
        params = {}
        for name, spec in specs.items():
            with self.at(*loc, name):
                self.claim(name, "a param")
            with self.at(*loc, name, "value"):
                quantity = parse_quantity(spec.value)
                if quantity.value < 0 and quantity.dimension != Dimension.none():
                    raise DescriptorError(f"{name!r} is {spec.value}; a physical quantity is not negative")
                if self.dims.setdefault(name, quantity.dimension) != quantity.dimension:
                    raise UnitError(f"{name!r} is in {quantity.dimension}; elsewhere in {self.dims[name]}")
            self.names[name] = symbol(name)
            params[name] = Param(quantity, self.spec.sources.get(spec.source, spec.source), spec.note or "")
        return params

    def memory(self, name: str) -> Memory:
        """Return a memory, and make NAME.size known to formulas."""
        spec = self.spec.memories[name]
        with self.at("memories", name):
            check_name(name)
        with self.at("memories", name, "size"):
            size = parse_quantity(spec.size)
            require(size.dimension, parse_unit("B").dimension, f"{name}.size")
            if size.value <= 0:
                raise DescriptorError(f"{name!r} has size {spec.size}; expected more than 0 B")
        self.names[f"{name}.size"] = symbol(f"{name}.size")
        self.dims[f"{name}.size"] = size.dimension
        return Memory(size, tuple(spec.holds))

    def table(self, name: str, spec: TableSpec) -> Any:
        """Return the look-up function of a table."""
        with self.at("tables", name):
            self.claim(name, "a table")
        for axis in spec.axes:
            with self.at("tables", name, "axes", axis):
                if axis not in SIZES:
                    raise DescriptorError(f"axis {axis!r} is not a size{did_you_mean(axis, SIZES)}")
        axes = tuple((axis, tuple(Fraction(str(v)) for v in values)) for axis, values in spec.axes.items())
        with self.at("tables", name, "unit"):
            unit = parse_unit(spec.unit)
        with self.at("tables", name, "values"):
            values = _flat_values(spec.values, [len(points) for _, points in axes])
        return make_table(Table(name, axes, tuple(v * unit.value for v in values), unit.dimension))

    def lets(self) -> None:
        """Parse the shared sub-formulas, each after those that it reads."""
        waiting = dict(self.spec.let)
        for name in waiting:
            with self.at("let", name):
                self.claim(name, "a let formula")
        while waiting:
            ready = [n for n, text in waiting.items() if not _mentions(str(text), waiting)]
            if not ready:
                with self.at("let", next(iter(waiting))):
                    raise DescriptorError(f"'let' formulas go in a circle: {', '.join(waiting)}")
            for name in ready:
                with self.at("let", name):
                    expr = parse(waiting.pop(name), Scope(self.names, self.tables))
                    self.dims[name] = dimension_of(expr, self.dims)
                    self.names[name] = expr

    def engine(self, name: str, spec: EngineSpec, params: dict[str, Param]) -> Engine:
        """Return an engine with its entries sorted by kind."""
        with self.at("engines", name):
            check_name(name)
        visible = {**self.names}
        for param in _other_engines_params(self.spec, name):
            visible.pop(param, None)
        maker = EntryMaker(Scope(visible, self.tables), self.dims)
        entries: dict[str, list[Entry]] = {kind: [] for kind in KINDS}
        for index, op in enumerate(spec.ops):
            if op.as_ is None:
                with self.at("engines", name, "ops", index):
                    for entry in maker.entries(op, self.document.where(("engines", name, "ops", index))):
                        entries[entry.kind].append(entry)
        plain = {kind: tuple(e) for kind, e in entries.items()}
        for index, op in enumerate(spec.ops):
            if op.as_ is not None:
                with self.at("engines", name, "ops", index):
                    at = self.document.where(("engines", name, "ops", index))
                    for entry in maker.aliases(op, plain, at):
                        entries[entry.kind].append(entry)
        default = {}
        if spec.default is not None:
            with self.at("engines", name, "default"):
                default = maker.defaults(spec.default, self.document.where(("engines", name, "default")))
        for found in entries.values():
            found.sort(key=lambda entry: -entry.conditions)
            with self.at("engines", name):
                ambiguities(found)
        precision = spec.precision.model_dump() if spec.precision else {}
        return Engine(
            name=name,
            title=spec.title or "",
            precision={bits: tuple(values) for bits, values in precision.items()},
            params=params,
            entries={kind: tuple(found) for kind, found in entries.items()},
            default=default,
        )

    def metric(self, name: str, spec: MetricSpec) -> Metric:
        """Return a metric; its dimension is checked, with cycles, busy and span as they will be."""
        with self.at("metrics", name):
            check_name(name)
            given = [key for key in ("row", "op", "reduce") if getattr(spec, key) is not None]
            if len(given) != 1:
                raise DescriptorError(f"metric {name!r} has {' and '.join(given) or 'no formula'};"
                                      " expected one of row, op, reduce")
        with self.at("metrics", name, "unit"):
            unit = parse_unit(spec.unit)
        text = getattr(spec, given[0])
        expr = None
        with self.at("metrics", name, given[0]):
            if given[0] == "reduce":
                require(parse_unit("B").dimension, unit.dimension, name)
            else:
                names, dims = self._metric_scope(given[0])
                expr = parse(text, Scope(names, self.tables if given[0] == "row" else {}))
                require(dimension_of(expr, dims), unit.dimension, name)
                _check_reads(name, expr, self.names)
        return Metric(
            name=name,
            unit=unit,
            title=spec.title or "",
            text=str(text),
            row=expr if given[0] == "row" else None,
            op=expr if given[0] == "op" else None,
            reduce=spec.reduce,
            engines=spec.engines,
            ops=spec.ops,
            at=self.document.where(("metrics", name)),
            note=spec.note or "",
        )

    def _metric_scope(self, form: str) -> tuple[dict[str, sympy.Basic], dict[str, Dimension]]:
        time = self._latency_dimension()
        extra = {"busy": time, "span": time, "cycles": parse_unit("cycle").dimension}
        names = dict(self.names)
        if form == "op":
            names = {n: e for n, e in names.items() if n not in SIZES and n not in DERIVED}
            extra = {"span": time} | {f"busy_{engine}": time for engine in self.spec.engines}
        return names | {n: symbol(n) for n in extra}, self.dims | extra

    def _latency_dimension(self) -> Dimension:
        latency = self.spec.metrics.get("latency")
        with self.at("metrics", "latency", "unit"):
            return parse_unit(latency.unit if latency else "s").dimension

    def latency_is_there(self, metrics: Mapping[str, Metric]) -> None:
        """Check that busy and span can be computed where a metric reads them."""
        for name, metric in metrics.items():
            reads_time = any(n.split("_")[0] in ("busy", "span") for n in metric.reads)
            with self.at("metrics", name):
                if reads_time and ("latency" not in metrics or metrics["latency"].row is None):
                    raise DescriptorError(f"{name!r} reads busy or span, so a metric 'latency' with a row formula is due")
                if name == "latency" and reads_time:
                    raise DescriptorError("'latency' reads busy or span, which are latencies themselves")
                if "cycles" in metric.reads and not self.spec.engines:
                    raise DescriptorError(f"{name!r} reads cycles, but the platform has no engines")

    def limit(self, name: str, text: str, metrics: Mapping[str, Metric]) -> Limit:
        """Return a limit: a condition over metrics, params and memory sizes."""
        with self.at("limits", name):
            own = {n: e for n, e in self.names.items() if n not in SIZES and n not in DERIVED}
            dims = self.dims | {n: m.unit.dimension for n, m in metrics.items()}
            condition = parse_condition(text, Scope(own | {n: symbol(n) for n in metrics}, {}))
            dimension_of(condition, dims)
            return Limit(name, text, condition)

    def check(self, index: int, spec: CheckSpec, metrics: Mapping[str, Metric]) -> Check:
        """Return a golden point in SI units."""
        kind, sizes = next(iter(spec.op.items()))
        loc = ("checks", index)
        with self.at(*loc, "op"):
            if kind not in KINDS:
                raise DescriptorError(f"no kind of op is named {kind!r}{did_you_mean(kind, KINDS)}")
            for size, value in sizes.items():
                if size not in kind_sizes(kind):
                    raise DescriptorError(f"{kind!r} has no size {size!r}{did_you_mean(size, kind_sizes(kind))}")
                if value < 0:
                    raise DescriptorError(f"{size} is {value}; expected 0 or more")
        with self.at(*loc, "metric"):
            if spec.metric not in metrics:
                raise DescriptorError(f"no metric {spec.metric!r}{did_you_mean(spec.metric, metrics)}")
        with self.at(*loc, "engine"):
            if spec.engine is not None and spec.engine not in self.spec.engines:
                raise DescriptorError(f"no engine {spec.engine!r}{did_you_mean(spec.engine, self.spec.engines)}")
        with self.at(*loc, "value"):
            value = parse_quantity(spec.value)
            require(value.dimension, metrics[spec.metric].unit.dimension, "value")
        with self.at(*loc, "tol"):
            tolerance = parse_quantity(spec.tol)
            require(tolerance.dimension, Dimension.none(), "tol")
        source = self.spec.sources.get(spec.source, spec.source)
        return Check(kind, dict(sizes), spec.metric, value, float(tolerance.value), source, spec.engine,
                     self.document.where(loc))


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


def _check_reads(name: str, expr: sympy.Expr, names: Mapping[str, Any]) -> None:
    reads = {s.name for s in expr.free_symbols}
    sizes = sorted(reads & (set(SIZES) | set(DERIVED)))
    if "span" in reads and (sizes or "cycles" in reads):
        raise DescriptorError(
            f"{name!r} reads span and {sizes[0] if sizes else 'cycles'}; a formula with span prices a whole op"
            " and may read only busy, span and params"
        )
