"""A picture of engines over time."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwcost.errors import SearchError
from hwcost.search.odimo_mapping import MappingTable, mapping
from hwcost.search.summary import readable
from hwcost.workload import Workload

if TYPE_CHECKING:
    from hwcost.search.odimo_method import ODiMOMethod

#: An op has its layer's name above it if it takes at least this share of the whole time.
NAMED_SHARE = 0.04

#: Longer paths are cut.
LONGEST = 24


def timeline(method: "ODiMOMethod", workload: Workload, path: str | Path | None = None) -> Any:
    """Return a figure with a lane for each engine, and a bar for all that it does of an op.

    Args:
        workload: the table of the exported network.
        path: also save it there.

    Raises:
        SearchError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import EngFormatter
    except ImportError:
        raise SearchError(
            "timeline() needs matplotlib; install it with: pip install hwcost[plot]"
        ) from None
    table = mapping(method, workload)
    lanes = len(table.engines)
    figure = Figure(figsize=(11, 1.3 + 0.75 * lanes), layout="constrained")
    axes = figure.add_subplot()
    _draw(axes, table)
    if table.unit == "s":
        axes.xaxis.set_major_formatter(EngFormatter(unit="s"))
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _draw(axes: Any, table: MappingTable) -> None:
    places = {name: lane for lane, name in enumerate(reversed(table.engines))}
    for place, engine in enumerate(table.engines):
        own = [s for s in table.shares if s.engine == engine]
        axes.barh(
            [places[engine]] * len(own),
            [s.latency for s in own],
            left=[s.start for s in own],
            height=0.7,
            color=f"C{place}",
            edgecolor="white",
            linewidth=0.8,
        )
    for op in {s.op: s for s in table.shares}.values():
        axes.axvline(op.start, color="0.85", linewidth=0.6, zorder=0)
        if table.span and op.span >= NAMED_SHARE * table.span:
            at = op.start + op.span / 2, len(places) - 0.55
            axes.text(*at, _short(op.layer), ha="left", va="bottom", rotation=30, fontsize=7)
    used = {e: table.busy(e) / table.span if table.span else 0.0 for e in table.engines}
    axes.set_yticks(list(places.values()), [f"{name}\nbusy {used[name]:.0%}" for name in places])
    axes.set_xlim(0, table.span or 1)
    axes.set_ylim(-0.6, len(places) - 0.4)
    axes.set_xlabel(f"time, {readable(table.span, table.unit)} in all")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _short(layer: str) -> str:
    """Return a path, or the last parts of a long one."""
    return layer if len(layer) <= LONGEST else ".".join(layer.split(".")[-3:])
