"""Figures of the documentation: predicted against measured, one SVG for each platform."""

import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from docs.accuracy import DENSE, NETWORK, POINTWISE, Pairs, compared, error_pairs, pairs
from hwcost.percent import rough_percent

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

FIGURES = Path(__file__).resolve().parent / "figures"

#: Colours that colour-blind readers tell apart (Okabe and Ito), each with a marker of its own for
#: those who print in grey; and the area of the marker, in square points.
STYLES = {
    NETWORK: ("#000000", "*", 90),
    DENSE: ("#0072B2", "s", 34),
    POINTWISE: ("#E69F00", "o", 34),
    "depthwise convolution": ("#009E73", "^", 40),
    "linear": ("#D55E00", "D", 30),
    "pool": ("#CC79A7", "v", 40),
    "elementwise": ("#56B4E9", "P", 44),
    "softmax": ("#7A5C00", "X", 44),
    "copy": ("#F0E442", "h", 44),
    "other": ("#999999", "p", 44),
}

#: Predictions within this share of the measurement lie in the band.
BAND = 0.2

#: The band, in grey.
_GREY = "#D9D9D9"

#: Name of an axis' unit, and what it is in SI; of another metric, that of SI.
_UNITS = {"latency": ("ms", 1e-3), "energy": ("mJ", 1e-3), "peak_ram": ("KiB", 1024.0)}

#: Inches. Side of the square panel where there is one, and where there are several.
_ALONE, _OF_SEVERAL = 3.7, 2.65
#: Width of the figure of one or two panels; height of the panel below, and the gap above it; height
#: of a line of the legend.
_WIDTH, _BELOW, _GAP, _LINE = 7.1, 1.15, 0.12, 0.21
#: Margins: left of a panel, above it for the titles, below it for the axis.
_LEFT, _TOP, _BOTTOM = 0.8, 0.9, 0.55

_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "hwcost",  # the names of clips and markers, else random
    "svg.fonttype": "none",  # text stays text: small files that can be searched
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "axes.titlesize": 9,
    "legend.fontsize": 9,
}

#: What SVG need not say of each text, and what is said once: the layout is made with the first
#: font, what readers may have instead is no wider.
_SHORTER = (
    (r" transform=\"rotate\(-0 [^\"]*\"", ""),
    (r" font-family: 'DejaVu Sans';", ""),
    (r"\*\{stroke", "text{font-family: 'DejaVu Sans', Verdana, sans-serif}\n*{stroke"),
    (r"(?m)^ +|[ \n]+$", ""),
)


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of one metric, in the unit of its axes.

    Attributes:
        axis: the metric and its unit.
        measured: shape ``(rows,)``; so ``predicted``.
        labels: what each row is of, a name of ``STYLES``.
        points: operating point of each row, empty for the default one.
    """

    axis: str
    measured: Tensor
    predicted: Tensor
    labels: tuple[str, ...]
    points: tuple[str, ...]

    def groups(self) -> dict[tuple[str, str], list[int]]:
        """Return label and point -> the rows, in the order of ``STYLES``."""
        found: dict[tuple[str, str], list[int]] = {}
        for row, key in enumerate(zip(self.labels, self.points, strict=True)):
            found.setdefault(key, []).append(row)
        return dict(sorted(found.items(), key=lambda item: [*STYLES].index(item[0][0])))


def outputs() -> Iterator[tuple[Path, str]]:
    """Yield each figure's file with what should be in it."""
    for name in compared():
        yield FIGURES / f"{name}.svg", svg(pairs(name))


def svg(found: Pairs) -> str:
    """Return the figure of a platform as SVG; the same text each time."""
    import matplotlib

    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **_STYLE}):
        out = io.StringIO()
        figure(found).savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    for pattern, instead in _SHORTER:
        text = re.sub(pattern, instead, text)
    return f"{text}\n"


def figure(found: Pairs) -> "Figure":
    """Return the figure: above predicted against measured, below how far off, and a legend."""
    from matplotlib.figure import Figure

    tables = [_rows(found, metric) for metric in found.metrics]
    side, handles = _ALONE if len(tables) == 1 else _OF_SEVERAL, _legend(tables, found.word)
    width = max(_WIDTH, len(tables) * (side + _LEFT) + 0.2)
    lines = 0 if len(tables) == 1 else math.ceil(len(handles) / 3)
    bottom = _BOTTOM + _LINE * lines
    made = Figure(figsize=(width, bottom + _BELOW + _GAP + side + _TOP))
    height = made.get_figheight()
    for i, (metric, rows) in enumerate(zip(found.metrics, tables, strict=True)):
        x = (_LEFT + i * (side + _LEFT)) / width
        below = made.add_axes((x, bottom / height, side / width, _BELOW / height))
        y = (bottom + _BELOW + _GAP) / height
        above = made.add_axes((x, y, side / width, side / height), sharex=below)
        _draw_above(above, rows)
        above.set_title(_title(found, metric), loc="left")
        _draw_below(below, rows, found.word)
    made.text(_LEFT / width, 1 - 0.22 / height, found.name, weight="bold")
    beside = (_LEFT + side + 0.1) / width, (height - _TOP + 0.05) / height
    made.legend(
        handles=handles,
        loc="lower center" if lines else "upper left",
        bbox_to_anchor=(0.5, 0.06 / height) if lines else beside,
        ncols=3 if lines else 1,
        frameon=False,
        borderaxespad=0,
    )
    return made


def _rows(found: Pairs, metric: str) -> Rows:
    chosen = [i for i, r in enumerate(found.readings) if r.metric == metric]
    unit = found.platform.metric(metric).unit.dimension
    name, scale = _UNITS.get(metric, (str(unit), 1.0))
    labels = found.labels
    return Rows(
        axis=f"{metric} [{name}]",
        measured=_rounded(found.measured[chosen] / scale),
        predicted=_rounded(found.predicted[chosen] / scale),
        labels=tuple(labels[i] if labels[i] in STYLES else "other" for i in chosen),
        points=tuple(found.readings[i].point for i in chosen),
    )


def _rounded(values: Tensor) -> Tensor:
    """Four digits, so that the last bit of a prediction does not change the file."""
    return torch.tensor([float(f"{v:.4g}") for v in values.tolist()], dtype=torch.float64)


def _title(found: Pairs, metric: str) -> str:
    lines = [
        f"{error.rows} {error.of if error.rows > 1 else error.of[:-1]}: {text}"
        for error, text in error_pairs(found)
        if error.metric == metric
    ]
    return "\n".join([f"{metric}, median / p90 of the errors:", *lines])


def _draw_above(ax: "Axes", rows: Rows) -> None:
    low, high = _limits(torch.cat([rows.measured, rows.predicted]))
    ends = torch.tensor([low, high])
    ax.fill_between(ends, ends * (1 - BAND), ends * (1 + BAND), color=_GREY, linewidth=0)
    ax.plot(ends, ends, color="#555555", linewidth=1)
    _scatter(ax, rows, rows.predicted)
    ax.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    ax.set_ylabel(f"predicted {rows.axis}")
    ax.tick_params(labelbottom=False)
    _ticks([ax.xaxis, ax.yaxis], high / low)
    _grid(ax)


def _draw_below(ax: "Axes", rows: Rows, word: str) -> None:
    off = 100 * (rows.predicted / rows.measured - 1)
    most = max(25.0, 10 * math.ceil(float(off.abs().max()) * 1.15 / 10))
    ax.axhspan(-100 * BAND, 100 * BAND, color=_GREY, linewidth=0)
    ax.axhline(0, color="#555555", linewidth=1)
    _scatter(ax, rows, off)
    ax.set(ylim=(-most, most), ylabel="off [%]")
    ax.set_xlabel(f"{word} {rows.axis}")
    _grid(ax)


def _scatter(ax: "Axes", rows: Rows, y: Tensor) -> None:
    for (label, point), chosen in rows.groups().items():
        colour, marker, size = STYLES[label]
        ax.scatter(
            rows.measured[chosen].tolist(),
            y[chosen].tolist(),
            s=size,
            marker=marker,
            facecolor="none" if point else colour,
            edgecolor=colour if point else "black",
            linewidth=1.3 if point else 0.5,
            zorder=3,
        )


def _legend(tables: Sequence[Rows], word: str) -> list["Artist"]:
    """What the marks mean: kinds of op, and hollow marks where a point is not the default one."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    used = {key for rows in tables for key in rows.groups()}
    found: list[Artist] = [
        Line2D([], [], color="#555555", linewidth=1, label=f"predicted = {word}"),
        Patch(color=_GREY, linewidth=0, label=f"within ±{rough_percent(BAND)}"),
    ]
    marks = [(text, *style) for text, style in STYLES.items() if text in {k for k, _ in used}]
    if points := sorted({point for _, point in used} - {""}):
        marks.append((f"hollow: at {', '.join(points)}", "none", "o", 34))
    for text, colour, marker, size in marks:
        mark = Line2D([], [], linestyle="", marker=marker, markersize=size**0.5, label=text)
        mark.set(markerfacecolor=colour, markeredgecolor="black", markeredgewidth=0.5)
        found.append(mark)
    return found


def _limits(values: Tensor) -> tuple[float, float]:
    """Limits of both axes: a little beyond all values, and at least a factor of 10 apart."""
    low, high = math.log10(float(values.min())), math.log10(float(values.max()))
    margin = max(0.08 * (high - low), (1 - (high - low)) / 2, 0.05)
    return 10 ** (low - margin), 10 ** (high + margin)


def _ticks(axes: Sequence["Axis"], ratio: float) -> None:
    """Label plain numbers, few of them where there are many powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for axis in axes:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if ratio < 200 else (1,)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())


def _grid(ax: "Axes") -> None:
    ax.grid(color="#E8E8E8", linewidth=0.7)
    ax.set_axisbelow(True)
