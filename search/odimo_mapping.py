"""Tables of who computes what: the mapping of an exported network, layer by layer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from torch import Tensor

from hwcost.costmodel import CostModel
from hwcost.search.odimo_split import PARTS
from hwcost.search.quantized_layers import titles
from hwcost.search.summary import aligned, readable
from hwcost.workload import Workload

if TYPE_CHECKING:
    from hwcost.search.odimo_method import ODiMOMethod


@dataclass(frozen=True)
class Table:
    """Rows of text under a header; ``str`` aligns them."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([*aligned([self.header, *self.rows]), *self.notes])


@dataclass(frozen=True)
class Share:
    """What an engine does of a layer.

    Attributes:
        layer: its path.
        op: its number in the table of ops.
        engine: the engine.
        kind: "depthwise" for a depthwise convolution, else the kind of op.
        channels: how many output channels it computes.
        w_bits, a_bits: the precision.
        latency: how long it works, in the platform's unit of latency.
        start: when the op begins; ``span``: how long it takes, that of its slowest engine.
        together: whether the engine's channels stand side by side.
    """

    layer: str
    op: int
    engine: str
    kind: str
    channels: int
    w_bits: int
    a_bits: int
    latency: float
    start: float
    span: float
    together: bool = True

    @property
    def utilisation(self) -> float:
        """The share of the op's time that the engine works."""
        return self.latency / self.span if self.span else 0.0


@dataclass(frozen=True)
class MappingTable:
    """Who computes what; ``str`` gives a table.

    Attributes:
        shares: of every layer, in order.
        engines: names, in the platform's order.
        unit: of latencies.
        cost: what the network costs by the search's metric, in ``cost_unit``.
        metric: that metric.
    """

    shares: tuple[Share, ...]
    engines: tuple[str, ...]
    unit: str
    cost: float
    cost_unit: str
    metric: str

    @property
    def span(self) -> float:
        """How long all ops take that an engine computes, one after another."""
        return sum({s.op: s.span for s in self.shares}.values())

    def busy(self, engine: str) -> float:
        """Return how long an engine works in all."""
        return sum(s.latency for s in self.shares if s.engine == engine)

    def channels(self, engine: str) -> int:
        """Return how many output channels an engine computes in all."""
        return sum(s.channels for s in self.shares if s.engine == engine)

    def __str__(self) -> str:
        header = ("layer", "engine", "op", "channels", "precision", "latency", "utilisation")
        return str(Table(header, tuple(self._rows()), tuple(self._notes())))

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for s in self.shares:
            yield (
                s.layer,
                s.engine,
                s.kind,
                f"{s.channels}{'' if s.together else ' *'}",
                f"w{s.w_bits}a{s.a_bits}",
                readable(s.latency, self.unit),
                f"{s.utilisation:.0%}",
            )
        for engine in self.engines:
            busy, count = self.busy(engine), str(self.channels(engine))
            used = f"{busy / self.span:.0%}" if self.span else ""
            yield "total", engine, "", count, "", readable(busy, self.unit), used

    def _notes(self) -> Iterator[str]:
        yield f"{self.metric}: {readable(self.cost, self.cost_unit)}"
        if not all(s.together for s in self.shares):
            yield "* not side by side: these channels are ordered by another layer, or fixed"


def mapping(method: "ODiMOMethod", workload: Workload) -> MappingTable:
    """Return the mapping of an exported network.

    Args:
        workload: its table.
    """
    model = latency_model(method.costs)
    names = tuple(method.platform.engines)
    return MappingTable(
        tuple(_shares(method, workload, model, names)),
        names,
        model.unit,
        float(method.costs.total(workload)),
        method.costs.unit,
        method.costs.metric.name,
    )


def latency_model(costs: CostModel) -> CostModel:
    """Return the platform's latency, or, if it has none, the metric itself."""
    has = "latency" in costs.platform.metrics
    return CostModel(costs.platform, "latency") if has else costs


def _shares(
    method: "ODiMOMethod", workload: Workload, model: CostModel, names: Sequence[str]
) -> Iterator[Share]:
    scattered = set(_scattered(method))
    costs = (model.rows(workload) * workload.column("weight")).tolist()
    plan = model.plan(workload)
    ops = workload.structure.ops.tolist()
    spans: dict[int, float] = {}
    for op, cost in zip(ops, costs, strict=True):
        spans[op] = max(spans.get(op, 0.0), cost)
    starts, now = {}, 0.0
    for op in sorted(spans):
        starts[op] = now
        now += spans[op]
    columns = {n: workload.column(n).tolist() for n in ("cin", "cout", "groups")}
    bits = {n: plan.bits[n].tolist() for n in ("w_bits", "a_bits")}
    weighted = _weighted(workload)
    for row in sorted(range(len(workload)), key=lambda row: (ops[row], row)):
        if weighted[row] and int(plan.engine[row]) >= 0:
            layer = _path(workload.layers[row])
            yield Share(
                layer=layer,
                op=ops[row],
                engine=names[int(plan.engine[row])],
                kind=_kind(workload, columns, row),
                channels=round(columns["cout"][row]),
                w_bits=int(bits["w_bits"][row]),
                a_bits=int(bits["a_bits"][row]),
                latency=costs[row],
                start=starts[ops[row]],
                span=spans[ops[row]],
                together=layer not in scattered,
            )


def _path(layer: str) -> str:
    """Return the layer that a part of a split convolution is of."""
    path, _, last = layer.rpartition(".")
    return path if last in PARTS else layer


def _weighted(workload: Workload) -> list[bool]:
    kinds = ("conv", "conv_transpose", "linear")
    return [kind in kinds for kind in workload.kinds]


def _kind(workload: Workload, columns: dict[str, list[float]], row: int) -> str:
    unsplit = workload.structure.unsplit
    whole: dict[str, Tensor | list[float]] = {**columns, **unsplit}
    cin, groups = float(whole["cin"][row]), float(whole["groups"][row])
    depthwise = workload.kinds[row] == "conv" and 1 < groups == cin
    return "depthwise" if depthwise else workload.kinds[row]


def _scattered(method: "ODiMOMethod") -> Iterator[str]:
    """Yield layers in which the channels of an engine do not stand side by side."""
    order, chosen = method.reordering(), method.chosen()
    names = titles(method.layers)
    for number, weight in enumerate(method.layers):
        index = order.index(weight.name, weight.layer.axis, len(method.kept(number)))
        kept = method.kept(number)[index].tolist()
        engines = [chosen[number][i].engine for i in kept]
        changes = sum(one != other for one, other in pairwise(engines))
        if changes >= len(set(engines)):
            yield names[number]
