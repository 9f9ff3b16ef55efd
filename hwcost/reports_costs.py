"""A network priced on a platform by several metrics: what every report is made of."""

import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from hwcost.costmodel import CostModel
from hwcost.derived_rows import derived
from hwcost.errors import HwcostWarning, UnknownName, WorkloadError, suggestion
from hwcost.loading import load
from hwcost.offers import FREE
from hwcost.plan import Plan, bits_text
from hwcost.platform import Metric, Platform
from hwcost.reports_coverage import Coverage, coverage
from hwcost.units import engineering
from hwcost.workload import Workload

#: What the status of a platform means to whom reads its numbers.
STATUS_MEANS = {
    "published": "published: formulas from the literature; no silicon was measured",
    "datasheet": "datasheet: formulas made from data sheet figures; no silicon was measured",
    "simulated": "simulated: formulas fitted to or checked in a simulator, not on silicon",
    "measured": "measured: formulas fitted to or checked on silicon",
    "template": "template: numbers that stand for nothing until hwcost fit has replaced them",
}

#: Where a platform may come from.
AnyPlatform = str | Path | Platform
#: A layer's engine, or one engine for all layers.
Mapped = str | Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Priced:
    """A network's costs on one platform.

    Attributes:
        models: metric -> cost model; all place ops on engines by the same metric.
        rows: metric -> cost of each row in the metric's unit, executions counted; ``(rows,)``.
        totals: metric -> cost of an inference in the metric's unit.
    """

    name: str
    platform: Platform
    workload: Workload
    models: Mapping[str, CostModel]
    rows: Mapping[str, Tensor]
    totals: Mapping[str, float]

    @property
    def metrics(self) -> list[Metric]:
        """The metrics in the order asked for."""
        return [model.metric for model in self.models.values()]

    @cached_property
    def plan(self) -> Plan:
        """Who prices each row: that of the first metric that depends on it."""
        models = list(self.models.values())
        return next((m for m in models if m.by_engine), models[0]).plan(self.workload)

    @cached_property
    def coverage(self) -> Coverage:
        """How much of the network is priced."""
        return coverage(self.workload, self.plan)

    @cached_property
    def macs(self) -> list[float]:
        """MACs of each row, executions counted, priced or not."""
        times = self.workload.column("weight").detach().cpu()
        return (times * derived(self.workload, self.plan.bits, "macs")).tolist()

    @property
    def precision(self) -> str:
        """The bits of the priced rows, such as ``w8a8``."""
        return bits_text(self.plan)

    @property
    def placed_by(self) -> str:
        """The metric by which ops were placed, empty where there was no choice."""
        chooses = len(self.platform.engines) > 1 and not all(self.workload.structure.engines)
        return next(iter(self.models.values())).place_by if chooses else ""

    @property
    def problems(self) -> list[str]:
        """Why ops have no price, in the order of the rows."""
        return [problem for _, problem in sorted(self.plan.problems.items())]

    def partial(self, metric: str) -> bool:
        """Whether some op has no price, so that the total is a lower bound."""
        model = self.models[metric]
        # An op without a formula still has its activations in memory.
        return model.metric.reduce is None and bool(model.plan(self.workload).problems)

    def total_text(self, metric: str) -> str:
        """The total for people, ``>= `` in front where it is a lower bound."""
        text = engineering(self.totals[metric], self.models[metric].unit)
        return f">= {text}" if self.partial(metric) else text

    def share(self, metric: str) -> list[float]:
        """Each row's share of the sum of rows; NaN where it has no price."""
        costs = self.rows[metric]
        whole = float(costs.nan_to_num().sum())
        return (costs / whole).tolist() if whole > 0 else [math.nan] * len(costs)

    def is_free(self, row: int) -> bool:
        """Whether the platform says that the row costs nothing."""
        return int(self.plan.status[row]) == FREE


def prepared(workload: Workload, mapping: Mapped | None, precision: str | None) -> Workload:
    """Return the workload at a precision and on engines, as a user gave them."""
    if precision is not None:
        workload = workload.with_precision(**parse_precision(precision))
    return workload if mapping is None else workload.with_engines(mapping)


def parse_precision(text: str) -> dict[str, float]:
    """Return ``w8a8`` as sizes; ``w4``, ``a8`` and ``w4a8o16`` are texts too.

    Raises:
        WorkloadError: the text is none of these.
    """
    found = re.fullmatch(r"(?:w(\d{1,2}))?(?:a(\d{1,2}))?(?:o(\d{1,2}))?", text.strip().lower())
    if not text.strip() or found is None:
        raise WorkloadError(f"precision is {text!r}; expected bits such as 'w8a8' or 'w4a8'")
    names = ("w_bits", "a_bits", "o_bits")
    return {
        n: float(bits) for n, bits in zip(names, found.groups(), strict=True) if bits is not None
    }


def price(
    name: str,
    workload: Workload,
    platform: AnyPlatform,
    metrics: Sequence[str] | None = None,
    *,
    place_by: str | None = None,
    on_unsupported: str = "error",
    with_rows: bool = True,
) -> Priced:
    """Return the costs of a workload by some metrics of a platform, all of them by default.

    Raises:
        UnknownName: no such metric; UnsupportedOp, PrecisionError, WorkloadError: as CostModel.
    """
    platform = load(platform)
    chosen = known_metrics(platform, workload, metrics)
    place_by = place_by or usual_place_by(platform, chosen)
    models = {
        metric: CostModel(platform, metric, place_by=place_by, on_unsupported=on_unsupported)
        for metric in chosen
    }
    with gathered_warnings():
        rows = {n: _weighted(m, workload) for n, m in models.items()} if with_rows else {}
        totals = {n: float(m.total(workload).detach()) for n, m in models.items()}
    return Priced(name, platform, workload, models, rows, totals)


def known_metrics(
    platform: Platform, workload: Workload, metrics: Sequence[str] | None
) -> list[str]:
    """Return the metrics asked for, or all that a table without a schedule has."""
    if metrics is not None:
        return list(dict.fromkeys(metrics))
    scheduled = workload.structure.buffers is not None
    return [n for n, m in platform.metrics.items() if scheduled or m.reduce is None]


def usual_place_by(platform: Platform, metrics: Sequence[str]) -> str | None:
    """Return the first of the metrics that depends on the engine: all others follow its placing."""
    for name in metrics:
        if CostModel(platform, name).by_engine:
            return name
    return None


def _weighted(model: CostModel, workload: Workload) -> Tensor:
    rows = model.rows(workload).detach()
    # Ops priced as a whole have the weight inside; memory is not used up by executions.
    once = model.metric.needs_ops or model.metric.reduce is not None
    return rows if once else rows * workload.column("weight").detach()


@contextmanager
def gathered_warnings() -> Iterator[None]:
    """Say each of our own warnings once, however many metrics it concerns."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    said = set()
    for one in caught:
        if issubclass(one.category, HwcostWarning) and str(one.message) in said:
            continue
        said.add(str(one.message))
        warnings.warn(one.message, one.category, stacklevel=5)


@contextmanager
def no_own_warnings() -> Iterator[None]:
    """Silence our own warnings where a report says the same in its notes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HwcostWarning)
        yield


def check_names(
    platforms: Sequence[Platform],
    metrics: Sequence[str],
    mapping: Mapped | None,
    place_by: str | None,
) -> None:
    """Raise for a metric or an engine that was asked for and none of the platforms has.

    Raises:
        UnknownName: names the nearest one.
    """
    known = list(dict.fromkeys(name for p in platforms for name in p.metrics))
    _check_known("a metric", [*metrics, *([place_by] if place_by else [])], known)
    placed = [mapping] if isinstance(mapping, str) else list((mapping or {}).values())
    _check_known("an engine", placed, list(dict.fromkeys(e for p in platforms for e in p.engines)))


def _check_known(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            hint = suggestion(name, known)
            raise UnknownName(f"none of the platforms has {what} {name!r}{hint}")
