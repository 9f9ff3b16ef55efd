"""Measured layers and networks: a CSV file as op tables with measured costs.

A row is an op with its sizes. ``net`` and ``layer`` name it; measured values stand in columns
named like a metric. A row with ``net`` alone is a whole network: its ops are the rows of that
``net``, measured or not, or those of the network of this name that comes with hwcost.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hwcost.errors import FitError, HwcostError, did_you_mean
from hwcost.measurements_cells import REMARKS, Line, read_lines
from hwcost.measurements_ops import check_op
from hwcost.ops import SIZES, defaults
from hwcost.platform import Platform
from hwcost.units import Dimension
from hwcost.workload import Workload

#: Values of one op of one layer that differ by more than this factor contradict each other; what is
#: measured again with noise does not.
CONTRADICTION = 1.5

#: Columns that a row of a whole network that comes with hwcost may have.
_OF_NETS = ("w_bits", "a_bits", "o_bits")


@dataclass(frozen=True, eq=False)
class Reading:
    """One measured value, and the ops that it is the cost of.

    Attributes:
        at: ``file:line``.
        layer: empty for a whole network.
        kind: empty for a whole network.
        value: in SI base units.
        workload: the op, or all ops of the network.
    """

    at: str
    net: str
    layer: str
    kind: str
    point: str
    metric: str
    value: float
    workload: Workload

    @property
    def of(self) -> str:
        """``layers`` or ``nets``, what was measured."""
        return "layers" if self.kind else "nets"

    @property
    def name(self) -> str:
        """Network and layer, for people."""
        return " ".join(filter(None, (self.net, self.layer or self.kind)))


@dataclass(frozen=True, eq=False)
class Measurements:
    """The measured values of a file.

    Attributes:
        name: of the file.
        sources: what the column ``source`` names, in order; so ``software`` and ``conditions``.
    """

    name: str
    readings: tuple[Reading, ...]
    sources: tuple[str, ...]
    software: tuple[str, ...]
    conditions: tuple[str, ...]


def metric_dimensions(platform: Platform) -> dict[str, Dimension]:
    """Return what may be measured, ``cycles`` and the platform's metrics, with its dimension."""
    metrics = {
        name: metric.unit.dimension
        for name, metric in platform.metrics.items()
        if metric.reduce is None and name not in SIZES and name not in REMARKS
    }
    return {"cycles": Dimension.of("cycle")} | metrics


def read_measurements(path: str | Path, platform: Platform) -> Measurements:
    """Return the measured values of a CSV file.

    Raises:
        FitError: a column, a cell or a row is wrong, or two rows contradict each other; the
            message starts with ``file:line``.
    """
    path = Path(path)
    lines = read_lines(path, metric_dimensions(platform))
    ops = [line for line in lines if line.text("kind")]
    table = _table(ops)
    of_net: dict[str, list[int]] = defaultdict(list)
    for index, line in enumerate(ops):
        of_net[line.text("net")].append(index)
    readings = []
    rows = iter(range(len(ops)))
    for line in lines:
        if line.text("kind"):
            row = next(rows)
            readings += _readings(line, table.slice(row, row + 1))
        else:
            readings += _readings(line, _network(line, ops, of_net, table))
    if not readings:
        raise FitError(f"{path.name}: no row has a measured value")
    _check_repeats(lines)
    _check_constant(readings, path.name)
    told = (_told(lines, column) for column in ("source", "software", "conditions"))
    return Measurements(path.name, tuple(readings), *told)


def _told(lines: Sequence[Line], column: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, (line.text(column) for line in lines))))


def _table(ops: Sequence[Line]) -> Workload:
    for line in ops:
        check_op(line)
    columns: dict[str, list[str] | list[float] | list[str | None]] = {
        "layer": [line.text("layer") or line.text("kind") for line in ops],
        "kind": [line.text("kind") for line in ops],
        "engine": [line.text("engine") or None for line in ops],
    }
    for size in SIZES:
        if any(size in line.sizes for line in ops):
            columns[size] = [line.sizes.get(size, float("nan")) for line in ops]
    return Workload.from_frame(columns)


def _network(
    line: Line, ops: Sequence[Line], of_net: Mapping[str, Sequence[int]], table: Workload
) -> Workload:
    """The ops of the network that a line without a kind names."""
    net, point = line.text("net"), line.text("point")
    if line.text("layer"):
        raise FitError(f"{line.at}: layer {line.text('layer')!r} has no 'kind'")
    if not net or not line.measured:
        raise FitError(f"{line.at}: a row without 'kind' needs 'net' and a measured value")
    rows = [row for row in of_net.get(net, ()) if ops[row].text("point") in ("", point)]
    if not rows:
        return _shipped_network(line, net, of_net)
    if line.sizes:
        size = next(iter(line.sizes))
        raise FitError(f"{line.at}: {size!r} stands in the rows of the network's ops")
    return Workload.concat([table.slice(row, row + 1) for row in rows])


def _shipped_network(line: Line, net: str, known: Mapping[str, object]) -> Workload:
    from hwcost.zoo import ZOO

    if net not in ZOO:
        hint = did_you_mean(net, [*known, *ZOO])
        raise FitError(
            f"{line.at}: no row is an op of net {net!r}, nor is it a network of the zoo"
            f"{hint or '; hwcost trace MODEL -o ROWS.csv writes the ops of yours'}"
        )
    wrong = next((size for size in line.sizes if size not in _OF_NETS), None)
    if wrong is not None:
        raise FitError(f"{line.at}: a whole network has no size {wrong!r}")
    try:
        workload = Workload.trace(*ZOO[net]()).with_precision(**line.sizes)
    except HwcostError as error:
        raise FitError(f"{line.at}: {error}") from None
    return workload.with_engines(line.text("engine")) if line.text("engine") else workload


def _readings(line: Line, workload: Workload) -> list[Reading]:
    return [
        Reading(
            at=line.at,
            net=line.text("net"),
            layer=line.text("layer"),
            kind=line.text("kind"),
            point=line.text("point"),
            metric=metric,
            value=value,
            workload=workload,
        )
        for metric, value in line.measured.items()
    ]


def _check_repeats(lines: Sequence[Line]) -> None:
    """Check that measurements of one op agree."""
    first: dict[object, tuple[Line, float]] = {}
    for line in lines:
        for metric, value in line.measured.items():
            known, before = first.setdefault((metric, _identity(line)), (line, value))
            if not 1 / CONTRADICTION <= value / before <= CONTRADICTION:
                raise FitError(
                    f"{line.at}: {metric!r} is {value:g} for the op of {known.at},"
                    f" where it is {before:g}"
                )


def _identity(line: Line) -> object:
    """What two measurements have in common that should be equal."""
    about = tuple(map(line.text, ("net", "layer", "kind", "engine", "point")))
    return about, frozenset({**defaults(), **line.sizes}.items())


def _check_constant(readings: Sequence[Reading], name: str) -> None:
    for metric in dict.fromkeys(reading.metric for reading in readings):
        values = [reading.value for reading in readings if reading.metric == metric]
        if len(values) > 2 and len(set(values)) == 1:
            raise FitError(
                f"{name}: column {metric!r} is {values[0]:g} in all of {len(values)} rows:"
                " there is nothing to fit"
            )
