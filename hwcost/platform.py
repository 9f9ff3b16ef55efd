"""Platform: a checked descriptor, its formulas parsed and its numbers in SI units."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any

import sympy

from hwcost.calibration import Calibration, Check, MeasuredError
from hwcost.derived import derived_exprs
from hwcost.descriptor import Document
from hwcost.errors import UnknownName, suggestion
from hwcost.formula import symbol
from hwcost.ops import KINDS
from hwcost.tile import Tile
from hwcost.units import Quantity


@dataclass(frozen=True)
class Param:
    """A number of the hardware: exact SI value with dimension, and its source.

    Attributes:
        fit: whether ``hwcost fit`` may change the value.
        bounds: the least and the largest value, in SI units; always there where ``fit`` is set.
        uncertainty: standard error of a fitted value, relative to it.
    """

    quantity: Quantity
    source: str
    note: str = ""
    fit: bool = False
    bounds: tuple[Fraction, Fraction] | None = None
    uncertainty: float | None = None

    @property
    def number(self) -> sympy.Rational:
        """The value in SI base units."""
        return sympy.Rational(self.quantity.value.numerator, self.quantity.value.denominator)


@dataclass(frozen=True)
class Memory:
    """A memory: its size in bytes and what must fit into it."""

    size: Quantity
    holds: tuple[str, ...]


@dataclass(frozen=True)
class Let:
    """A sub-formula that other formulas share: as written, and over sizes and params."""

    text: str
    expr: sympy.Expr


@dataclass(frozen=True, eq=False)
class Alias:
    """How an entry got its formula from another kind: size of that kind -> what stands for it.

    Attributes:
        given: the sizes that the file names; the others have their usual values.
    """

    kind: str
    sizes: Mapping[str, sympy.Expr]
    given: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Entry:
    """What one kind of op costs on an engine, where ``where`` holds.

    ``cycles``, ``scratch`` and ``reserved`` read sizes, derived sizes and params by name; exactly
    one of ``cycles``, ``free`` and ``unsupported`` is set.

    Attributes:
        conditions: how many conditions ``where`` joins; the entry with the most wins.
        at: file and line, for messages.
        reserved: buffer that is there for the whole network -> bytes that the op uses of it.
        in_place: whether the output overwrites the input, where no later op reads that.
        alias: set where the formulas are those of another kind.
        tile: set where the op is cut into tiles, whose sizes the formulas then read.
    """

    kind: str
    where: sympy.Basic
    conditions: int
    at: str
    text: str = ""
    cycles: sympy.Expr | None = None
    free: str = ""
    unsupported: str = ""
    scratch: sympy.Expr | None = None
    reserved: Mapping[str, sympy.Expr] = field(default_factory=dict)
    in_place: bool = False
    note: str = ""
    source: str = ""
    alias: "Alias | None" = None
    tile: Tile | None = None

    @cached_property
    def row_cycles(self) -> sympy.Expr:
        """Cycles of a whole row over size columns and params.

        A formula prices one sample, so it is evaluated at ``batch`` = 1 and multiplied by
        ``batch``, unless it reads ``batch`` itself.
        """
        assert self.cycles is not None
        batch = symbol("batch")
        expr = self.expanded(self.cycles)
        if "batch" in KINDS[self.kind].sizes and batch not in self.cycles.free_symbols:
            return batch * expr.xreplace({batch: sympy.Integer(1)})
        return expr

    def expanded(self, expr: sympy.Basic) -> sympy.Basic:
        """``expr`` with the derived sizes of this kind and those of its tiles written out."""
        if self.tile is not None:
            expr = expr.xreplace(self.tile.names)
        return expr.xreplace(derived_exprs(self.kind))


@dataclass(frozen=True, eq=False)
class Engine:
    """A part of the hardware that computes.

    Attributes:
        precision: column -> bits that it computes with; empty for any.
        entries: kind -> entries, most conditions first.
        default: kind -> the fallback entry of that kind.
    """

    name: str
    title: str
    precision: Mapping[str, tuple[int, ...]]
    params: Mapping[str, Param]
    entries: Mapping[str, tuple[Entry, ...]]
    default: Mapping[str, Entry]


@dataclass(frozen=True, eq=False)
class Metric:
    """A cost: a formula of a row (``row``), of an op (``op``), or a reduction (``reduce``)."""

    name: str
    unit: Quantity
    title: str
    text: str
    row: sympy.Expr | None
    op: sympy.Expr | None
    reduce: str | None
    engines: str
    ops: str
    at: str
    note: str = ""

    @cached_property
    def reads(self) -> frozenset[str]:
        """Names that the formula reads."""
        expr = self.row if self.row is not None else self.op
        return frozenset() if expr is None else frozenset(s.name for s in expr.free_symbols)

    @property
    def needs_ops(self) -> bool:
        """Whether the formula is one of a whole op rather than of one row."""
        return self.op is not None or "span" in self.reads


@dataclass(frozen=True, eq=False)
class Limit:
    """A condition over metrics, params and memory sizes that a network must meet."""

    name: str
    text: str
    condition: sympy.Basic


@dataclass(frozen=True, eq=False)
class Platform:
    """A target: engines, their formulas, and the metrics made of them.

    Attributes:
        name: that of the file, with ``@`` and the point where this is not the default one.
        points: the operating points of the file, the default one first; often none.
        point: the one that ``params`` are those of, empty where there are none.
    """

    name: str
    title: str
    status: str
    note: str
    sources: Mapping[str, str]
    params: Mapping[str, Param]
    lets: Mapping[str, Let]
    memories: Mapping[str, Memory]
    engines: Mapping[str, Engine]
    metrics: Mapping[str, Metric]
    deploy: Mapping[str, int]
    limits: tuple[Limit, ...]
    checks: tuple[Check, ...]
    document: Document
    points: tuple[str, ...] = ()
    point: str = ""
    calibration: Calibration | None = None

    def __repr__(self) -> str:
        return f"Platform({self.name!r}: {self.title}, {self.status})"

    def __reduce__(self) -> tuple[Any, ...]:
        from hwcost.loading import build

        return build, (self.document, self.point or None)

    def __deepcopy__(self, memo: object) -> "Platform":
        return self  # it never changes

    def at(self, point: str) -> "Platform":
        """Return the platform at another of its operating points.

        Raises:
            UnknownName: it has none of this name.
        """
        from hwcost.loading import build

        return self if point == self.point else build(self.document, point)

    def error(self, metric: str, of: str = "nets") -> MeasuredError | None:
        """Return how far a metric is off, measured at this operating point; None if not known.

        Args:
            of: ``"layers"`` for the error of a layer, ``"nets"`` for that of networks, for which
                that of layers stands in where networks were not measured.
        """
        errors = {} if self.calibration is None else self.calibration.errors_at(metric, self.point)
        return errors.get(of, errors.get("layers"))

    def metric(self, name: str) -> Metric:
        """Return a metric by name.

        Raises:
            UnknownName: the platform has none of this name.
        """
        if name not in self.metrics:
            known = suggestion(name, self.metrics)
            raise UnknownName(f"platform {self.name!r} has no metric {name!r}{known}")
        return self.metrics[name]

    def engine(self, name: str) -> Engine:
        """Return an engine by name.

        Raises:
            UnknownName: the platform has none of this name.
        """
        if name not in self.engines:
            known = suggestion(name, self.engines)
            raise UnknownName(f"platform {self.name!r} has no engine {name!r}{known}")
        return self.engines[name]

    def numbers(self, engine: Engine | None = None) -> dict[sympy.Symbol, sympy.Rational]:
        """Return the value of each param and memory size in SI units, an engine's own first."""
        values: dict[sympy.Symbol, sympy.Rational] = {
            symbol(f"{name}.size"): sympy.Rational(m.size.value.numerator, m.size.value.denominator)
            for name, m in self.memories.items()
        }
        params = {**self.params, **(engine.params if engine else {})}
        return values | {symbol(name): param.number for name, param in params.items()}

    def with_params(self, **values: str | float) -> "Platform":
        """Return the same platform with other numbers, such as ``clock="300 MHz"``.

        They hold at every operating point. Measured errors are not those of the result, so it
        has no ``calibration``.

        Raises:
            UnknownName: the platform has no param of this name.
            UnitError: the value's dimension does not fit the formulas.
        """
        from hwcost.loading import build

        data = dict(self.document.data)
        params = dict(data.get("params", {}))
        for name, value in values.items():
            if name not in params:
                hint = suggestion(name, params)
                raise UnknownName(f"platform {self.name!r} has no param {name!r}{hint}")
            params[name] = {**params[name], "value": value}
        data["params"] = params
        data.pop("calibration", None)
        if "points" in data:
            data["points"] = {
                point: {n: v for n, v in numbers.items() if n not in values}
                for point, numbers in data["points"].items()
            }
        document = Document(data, self.document.lines, self.document.name)
        return build(document, self.point or None)
