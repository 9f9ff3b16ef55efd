"""Reports: a network on a platform, networks over platforms, tables of costs."""

from collections.abc import Iterable, Sequence
from typing import Any

from hwcost.errors import HwcostError, UnknownName
from hwcost.loading import available, load
from hwcost.platform import Platform
from hwcost.progress import Progress
from hwcost.reports_compare import Comparison, Entry
from hwcost.reports_costs import (
    AnyPlatform,
    Mapped,
    check_names,
    known_metrics,
    no_own_warnings,
    prepared,
    price,
)
from hwcost.reports_layers import Report
from hwcost.reports_models import Named, named_models
from hwcost.reports_parts import priced_part
from hwcost.reports_table import CostTable
from hwcost.workload import Workload


def report(
    model: Any,
    platform: AnyPlatform,
    metrics: Sequence[str] | str | None = None,
    example: Any = None,
    *,
    input_shape: Any = None,
    mapping: Mapped | None = None,
    precision: str | None = None,
    place_by: str | None = None,
    on_unsupported: str = "error",
) -> Report:
    """Return what each op of a network costs on a platform.

    Args:
        model: a module with an ``example`` or an ``input_shape``, a zoo name, a
            ``(module, example)`` pair or a Workload.
        metrics: names of metrics; all of the platform's by default.
        mapping: the engine of all layers, or layer -> engine; the other ops run where
            ``place_by`` is least.
        precision: bits of every op, such as ``w8a8``; the model's own by default, else the
            platform's.
        place_by: the metric that places ops on engines; by default the first of ``metrics``
            that depends on the engine.
        on_unsupported: ``"error"``, or ``"warn"`` to price the rest: totals are lower bounds.

    Raises:
        UnknownName: no such model, platform, metric, layer or engine.
        UnsupportedOp, PrecisionError, WorkloadError, TraceError: see CostModel and trace.
    """
    pair = model if example is None else (model, example)
    [named] = named_models(pair, input_shape)
    workload = prepared(named.workload, mapping, precision)
    chosen = [metrics] if isinstance(metrics, str) else metrics
    costs = price(
        named.name, workload, platform, chosen, place_by=place_by, on_unsupported=on_unsupported
    )
    return Report(costs)


def compare(
    models: Any,
    platforms: AnyPlatform | Iterable[AnyPlatform] | None = None,
    metrics: Sequence[str] | str | None = None,
    *,
    input_shape: Any = None,
    mapping: Mapped | None = None,
    precision: str | None = None,
    place_by: str | None = None,
    measured: bool = False,
    progress: Progress | None = None,
) -> Comparison:
    """Return the costs of networks on platforms, a row for each pair.

    A platform that lacks formulas for some ops gives a lower bound, marked as such; one that
    cannot price a network at all gives a row that says why.

    Args:
        models: a zoo name, a module with ``input_shape``, a ``(module, example)`` pair, a
            Workload, several of these, or a dict from names to them. Each is traced once.
        platforms: all shipped ones by default.
        metrics: by default those that depend on the hardware and that several of the platforms
            have; all of them for a single platform.
        measured: whether to put published measurements beside the costs, for networks of the zoo
            on the platforms where some are known.
        progress: called before each step.

    Raises:
        UnknownName: no such model or platform, or none of the platforms has the metric.
        TraceError: a model does not run on its example.
    """
    targets = _platforms(platforms)
    chosen = [metrics] if isinstance(metrics, str) else list(metrics or usual_metrics(targets))
    check_names(targets, chosen, mapping, place_by)
    named = named_models(models, input_shape)
    entries: list[Entry] = []
    for one in named:
        for platform in targets:
            if progress is not None:
                step = f"{one.name} on {platform.name}"
                progress(step, len(entries), len(named) * len(targets))
            entries.append(_entry(one, platform, chosen, mapping, precision, place_by))
    return Comparison(entries, chosen, measured)


def _entry(
    one: Named,
    platform: Platform,
    metrics: Sequence[str],
    mapping: Mapped | None,
    precision: str | None,
    place_by: str | None,
) -> Entry:
    known = [m for m in metrics if m in known_metrics(platform, one.workload, None)]
    workload = prepared_here(one.workload, platform, mapping, precision)
    place_by = place_by if place_by in platform.metrics else None
    try:
        with no_own_warnings():
            costs = price(
                one.name,
                workload,
                platform,
                known or None,
                place_by=place_by,
                on_unsupported="warn",
                # Rows tell which share of a cost lies outside what was calibrated.
                with_rows=platform.calibration is not None,
            )
    except HwcostError as error:
        return Entry(one.name, platform, None, str(error), one.zoo)
    return Entry(one.name, platform, costs, zoo=one.zoo)


def prepared_here(
    workload: Workload, platform: Platform, mapping: Mapped | None, precision: str | None
) -> Workload:
    """``prepared``, with the engines that this platform has; others are for other platforms."""
    if isinstance(mapping, str):
        mapping = mapping if mapping in platform.engines else None
    elif mapping is not None:
        mapping = {layer: e for layer, e in mapping.items() if e in platform.engines}
    return prepared(workload, mapping, precision)


def table(
    models: Any,
    platforms: AnyPlatform | Iterable[AnyPlatform] | None = None,
    metrics: Sequence[str] | str | None = None,
    *,
    input_shape: Any = None,
    mapping: Mapped | None = None,
    precision: str | None = None,
    place_by: str | None = None,
    on_unsupported: str = "error",
) -> CostTable:
    """Return a tidy table of costs: one row for each op of each network on each platform.

    Costs are those of one execution of a row. Long tables (``Workload.grid``) are priced block
    by block.

    Args:
        models: as for ``compare``.
        metrics: all metrics by default.

    Raises:
        UnknownName, UnsupportedOp, PrecisionError, WorkloadError, TraceError: as for ``report``.
    """
    targets = _platforms(platforms)
    chosen = [metrics] if isinstance(metrics, str) else metrics
    check_names(targets, chosen or (), mapping, place_by)
    parts = []
    for one in named_models(models, input_shape):
        for platform in targets:
            known = known_metrics(platform, one.workload, chosen)
            known = [metric for metric in known if metric in platform.metrics]
            if known:
                workload = prepared_here(one.workload, platform, mapping, precision)
                parts.append(
                    priced_part(one.name, workload, platform, known, place_by, on_unsupported)
                )
    return CostTable(parts)


def usual_metrics(platforms: Sequence[Platform]) -> list[str]:
    """Return the metrics to compare by: times and energies, then memory; all if there are none."""
    every = list(dict.fromkeys(name for p in platforms for name in p.metrics))
    timed = [name for name in every if any(_is_timed(p, name) for p in platforms)]
    return timed + [n for n in every if _reduces(platforms, n)] if timed else every


def _is_timed(platform: Platform, metric: str) -> bool:
    """Whether a metric depends on how long engines work."""
    found = platform.metrics.get(metric)
    reads = set() if found is None else found.reads & {"cycles", "busy", "span"}
    return found is not None and bool(found.needs_ops or reads)


def _reduces(platforms: Sequence[Platform], metric: str) -> bool:
    return any(p.metrics[metric].reduce is not None for p in platforms if metric in p.metrics)


def _platforms(platforms: AnyPlatform | Iterable[AnyPlatform] | None) -> list[Platform]:
    if platforms is None:
        return [load(name) for name in available()]
    if (
        isinstance(platforms, Platform)
        or not isinstance(platforms, Iterable)
        or isinstance(platforms, str)
    ):
        return [load(platforms)]
    found = [load(platform) for platform in platforms]
    if not found:
        raise UnknownName("no platform was given")
    return found
