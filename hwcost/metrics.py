"""Metrics, limits and golden points of a platform file."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sympy

from hwcost.calibration import Check
from hwcost.definitions import Definitions
from hwcost.dimensions import dimension_of, require
from hwcost.errors import DescriptorError, did_you_mean, suggestion
from hwcost.formula import Scope, check_name, parse, parse_condition, symbol
from hwcost.ops import DERIVED, KINDS, SIZES, kind_sizes
from hwcost.platform import Limit, Metric
from hwcost.points import check_point
from hwcost.schema import MetricSpec, PlatformSpec
from hwcost.schema_measured import CheckSpec
from hwcost.units import Dimension, parse_quantity, parse_unit


@dataclass(frozen=True)
class MetricMaker:
    """Turns what a file says of costs into values."""

    spec: PlatformSpec
    known: Definitions

    def metric(self, name: str, spec: MetricSpec) -> Metric:
        """Return a metric; its dimension is checked, with cycles, busy and span as they will be."""
        with self.known.at("metrics", name):
            check_name(name)
            given = [key for key in ("row", "op", "reduce") if getattr(spec, key) is not None]
            if len(given) != 1:
                raise DescriptorError(
                    f"metric {name!r} has {' and '.join(given) or 'no formula'};"
                    " expected one of row, op, reduce"
                )
        with self.known.at("metrics", name, "unit"):
            unit = parse_unit(spec.unit)
        text = getattr(spec, given[0])
        expr = None
        with self.known.at("metrics", name, given[0]):
            if given[0] == "reduce":
                require(parse_unit("B").dimension, unit.dimension, name)
            else:
                names, dims = self._metric_scope(given[0])
                expr = parse(text, Scope(names, self.known.tables if given[0] == "row" else {}))
                self.known.check_dimension(expr, unit.dimension, name, dims)
                self.known.check_no_tile(expr)
                _check_reads(name, expr, self.known.names)
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
            at=self.known.document.where(("metrics", name)),
            note=spec.note or "",
        )

    def _metric_scope(self, form: str) -> tuple[dict[str, sympy.Basic], dict[str, Dimension]]:
        time = self._latency_dimension()
        extra = {"busy": time, "span": time, "cycles": parse_unit("cycle").dimension}
        names = dict(self.known.names)
        if form == "op":
            names = {n: e for n, e in names.items() if n not in SIZES and n not in DERIVED}
            extra = {"span": time} | {f"busy_{engine}": time for engine in self.spec.engines}
        return names | {n: symbol(n) for n in extra}, self.known.dims | extra

    def _latency_dimension(self) -> Dimension:
        latency = self.spec.metrics.get("latency")
        with self.known.at("metrics", "latency", "unit"):
            return parse_unit(latency.unit if latency else "s").dimension

    def check_times(self, metrics: Mapping[str, Metric]) -> None:
        """Check that busy and span can be computed where a metric reads them."""
        for name, metric in metrics.items():
            reads_time = any(n.split("_")[0] in ("busy", "span") for n in metric.reads)
            with self.known.at("metrics", name):
                if reads_time and ("latency" not in metrics or metrics["latency"].row is None):
                    raise DescriptorError(
                        f"{name!r} reads busy or span, so a 'latency' with a row formula is due"
                    )
                if name == "latency" and reads_time:
                    raise DescriptorError(
                        "'latency' reads busy or span, which are latencies themselves"
                    )
                if "cycles" in metric.reads and not self.spec.engines:
                    raise DescriptorError(f"{name!r} reads cycles, but the platform has no engines")

    def limit(self, name: str, text: str, metrics: Mapping[str, Metric]) -> Limit:
        """Return a limit: a condition over metrics, params and memory sizes."""
        with self.known.at("limits", name):
            own = {n: e for n, e in self.known.names.items() if n not in SIZES and n not in DERIVED}
            dims = self.known.dims | {n: m.unit.dimension for n, m in metrics.items()}
            condition = parse_condition(text, Scope(own | {n: symbol(n) for n in metrics}, {}))
            dimension_of(condition, dims)
            self.known.check_no_tile(condition)
            return Limit(name, text, condition)

    def check(self, index: int, spec: CheckSpec, metrics: Mapping[str, Metric]) -> Check:
        """Return a golden point in SI units."""
        loc = ("checks", index)
        with self.known.at(*loc):
            if (spec.op is None) == (spec.zoo is None):
                raise DescriptorError("a check has either 'op' or 'zoo', which was measured")
        with self.known.at(*loc, "op"):
            kind, sizes = _checked_op(spec)
        with self.known.at(*loc, "zoo"):
            _check_zoo(spec)
        if spec.point is not None:
            with self.known.at(*loc, "point"):
                check_point(spec.point, tuple(self.spec.points))
        with self.known.at(*loc, "metric"):
            if spec.metric not in metrics:
                raise DescriptorError(
                    f"no metric {spec.metric!r}{suggestion(spec.metric, metrics)}"
                )
        with self.known.at(*loc, "engine"):
            if spec.engine is not None and spec.engine not in self.spec.engines:
                raise DescriptorError(
                    f"no engine {spec.engine!r}{suggestion(spec.engine, self.spec.engines)}"
                )
        with self.known.at(*loc, "value"):
            value = parse_quantity(spec.value)
            require(value.dimension, metrics[spec.metric].unit.dimension, "value")
            if value.value < 0:
                raise DescriptorError(f"value is {spec.value}; expected 0 or more")
        with self.known.at(*loc, "tol"):
            tolerance = parse_quantity(spec.tol)
            require(tolerance.dimension, Dimension.none(), "tol")
            if not 0 <= tolerance.value <= 1:
                raise DescriptorError(f"tol is {spec.tol}; expected 0 % to 100 %")
        source = self.spec.sources.get(spec.source, spec.source)
        return Check(
            kind,
            dict(sizes),
            spec.metric,
            value,
            float(tolerance.value),
            source,
            spec.engine,
            self.known.document.where(loc),
            spec.zoo or "",
            spec.point,
        )


def _checked_op(spec: CheckSpec) -> tuple[str, Mapping[str, float]]:
    """The kind and the sizes of the op, empty for a network."""
    kind, sizes = next(iter((spec.op or {"": {}}).items()))
    if spec.op is not None and kind not in KINDS:
        raise DescriptorError(f"no kind of op is named {kind!r}{did_you_mean(kind, KINDS)}")
    for size, number in sizes.items():
        if size not in kind_sizes(kind):
            raise DescriptorError(
                f"{kind!r} has no size {size!r}{did_you_mean(size, kind_sizes(kind))}"
            )
        if number < 0:
            raise DescriptorError(f"{size} is {number}; expected 0 or more")
    return kind, sizes


def _check_zoo(spec: CheckSpec) -> None:
    if spec.zoo is None:
        return
    # Here, not above: a file without such checks loads without torch, which takes a second.
    from hwcost.zoo import ZOO

    if spec.zoo not in ZOO:
        raise DescriptorError(f"no network {spec.zoo!r} in the zoo{suggestion(spec.zoo, ZOO)}")


def _check_reads(name: str, expr: sympy.Expr, names: Mapping[str, Any]) -> None:
    reads = {s.name for s in expr.free_symbols}
    sizes = sorted(reads & (set(SIZES) | set(DERIVED)))
    if "span" in reads and (sizes or "cycles" in reads):
        raise DescriptorError(
            f"{name!r} reads span and {sizes[0] if sizes else 'cycles'}; a formula with span"
            " prices a whole op and may read only busy, span and params"
        )
