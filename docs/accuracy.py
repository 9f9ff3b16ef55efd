"""Measured rows of docs/data beside what the platforms predict, and the text that says so."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from docs.markdown import table
from hwcost.calibration import MeasuredError
from hwcost.derived_rows import measured_kinds
from hwcost.fit_errors import Errors, errors_by_metric
from hwcost.fit_model import predictions
from hwcost.loading import available, load
from hwcost.measurements import Reading, read_measurements
from hwcost.percent import rough_percent, signed_percent
from hwcost.platform import Platform
from hwcost.reports_costs import STATUS_MEANS
from hwcost.schema_measured import DEPTHWISE
from hwcost.units import engineering

DATA = Path(__file__).resolve().parent / "data"

#: Rows of a platform's table, those furthest off.
_FURTHEST = 3

#: What a point of a figure is, where the kind of op does not say it.
NETWORK, POINTWISE, DENSE = "whole network", "1x1 convolution", "larger convolution"


@dataclass(frozen=True, eq=False)
class Pairs:
    """A platform's predictions beside what was measured.

    Attributes:
        measured: SI units, shape ``(readings,)``; so ``predicted``.
    """

    platform: Platform
    readings: tuple[Reading, ...]
    measured: Tensor
    predicted: Tensor

    @property
    def name(self) -> str:
        """The platform's name without an operating point."""
        return self.platform.name.partition("@")[0]

    @property
    def word(self) -> str:
        """``measured``, or ``reference`` where the rows are not those of silicon."""
        return "measured" if self.platform.status == "measured" else "reference"

    @property
    def metrics(self) -> tuple[str, ...]:
        """What was measured, latency first."""
        return tuple(sorted({r.metric for r in self.readings}, key=lambda m: m != "latency"))

    @property
    def errors(self) -> tuple[Errors, ...]:
        """Errors on these rows, by metric, of layers apart from those of networks."""
        return errors_by_metric(self.readings, self.measured, self.predicted, None)

    @property
    def labels(self) -> list[str]:
        """What each reading is of, such as ``depthwise``."""
        return [_label(reading) for reading in self.readings]


def _label(reading: Reading) -> str:
    if reading.of == "nets":
        return NETWORK
    (kind,) = measured_kinds(reading.workload)
    if kind == DEPTHWISE:
        return "depthwise convolution"
    if kind != "conv":
        return kind
    taps = [float(reading.workload.column(size)) for size in ("kd", "kh", "kw")]
    return POINTWISE if taps == [1, 1, 1] else DENSE


def compared() -> list[str]:
    """Return the names of the shipped platforms that have measured rows."""
    shipped = available()
    return [path.stem for path in sorted(DATA.glob("*.csv")) if path.stem in shipped]


@cache
def pairs(name: str) -> Pairs:
    """Return a platform's measured rows beside its predictions, each at its operating point.

    Cycles are shown as the latency that they are at the clock of their point.
    """
    platform = load(name)
    readings = read_measurements(DATA / f"{name}.csv", platform).readings
    predicted = predictions(platform, readings)
    timed = [replace(r, metric="latency") if r.metric == "cycles" else r for r in readings]
    shown = predictions(platform, timed)
    measured = torch.tensor([r.value for r in readings], dtype=torch.float64) * shown / predicted
    return Pairs(platform, tuple(timed), measured, shown)


def error_pairs(found: Pairs) -> Iterator[tuple[Errors, str]]:
    """Yield the errors on the rows, each with the text ``2.4 % / 11 %, unseen 18 % / 57 %``."""
    known = found.platform.calibration
    for error in found.errors:
        stated = () if known is None else known.errors.get(error.metric, ())
        unseen = [_unseen(one) for one in stated if one.of == error.of and one.unseen_p90]
        text = _pair(error.median, error.p90) if stated else "no error can be stated"
        yield error, ", unseen ".join([text, *unseen])


# Tables of the page


def statuses() -> str:
    """Return what each status of a platform means."""
    texts = (text.partition(": ") for text in STATUS_MEANS.values())
    return "\n".join(f"- **{status}**: {meaning}." for status, _, meaning in texts)


def overview() -> str:
    """Return the errors of all platforms as a Markdown table."""
    rows = [row for name in available() for row in _overview(load(name))]
    titles = ("platform", "status", "metric", "rows", "off by", "unseen", "software", "date")
    return table(titles, rows)


def _overview(platform: Platform) -> Iterator[tuple[str, ...]]:
    known = platform.calibration
    name = platform.name.partition("@")[0]
    if known is None or not known.errors:
        software, date = (known.software, known.date) if known else ("-", "-")
        yield (f"`{name}`", platform.status, "-", "-", "-", "-", software, date)
        return
    for metric, error in ((m, e) for m, errors in known.errors.items() for e in errors):
        rows, off = f"{error.rows} {error.of}", _pair(error.median, error.p90)
        told = (metric, rows, off, _unseen(error), known.software, known.date)
        yield (f"`{name}`", platform.status, *told)


def _unseen(error: MeasuredError) -> str:
    return "-" if error.unseen_p90 is None else _pair(error.unseen_median, error.unseen_p90)


def _pair(median: float | None, p90: float) -> str:
    return f"{'-' if median is None else rough_percent(median)} / {rough_percent(p90)}"


def sections() -> str:
    """Return a section on each platform with measured rows: figure, origin, limits."""
    return "\n\n".join(_section(pairs(name)) for name in compared())


def _section(found: Pairs) -> str:
    platform, known, name = found.platform, found.platform.calibration, found.name
    parts = [
        f"### {name}",
        f"{_sentence(platform.title)} Status: {platform.status}.",
        f"![{name}: predicted against {found.word}](figures/{name}.svg)",
    ]
    if known is not None:
        parts += [f"**Rows.** {_sentence(known.data)} {_sentence(known.note)}".strip()]
        parts += [f"**Software.** {_sentence(known.software)}"] if known.software else []
    return "\n\n".join([*parts, f"**Limits.** {_sentence(platform.note)}", _furthest(found)])


def _furthest(found: Pairs) -> str:
    off = (found.predicted / found.measured).log().abs()
    order = off.argsort(descending=True, stable=True).tolist()[:_FURTHEST]
    rows = [_row(found, i) for i in order]
    return table(("furthest off", "what", found.word, "predicted", "off"), rows)


def _row(found: Pairs, i: int) -> tuple[str, ...]:
    reading, measured, predicted = found.readings[i], found.measured[i], found.predicted[i]
    unit = str(found.platform.metric(reading.metric).unit.dimension)
    name = reading.name + (f" at {reading.point}" if reading.point else "")
    return (
        name,
        f"{found.labels[i]}, {reading.metric}",
        engineering(float(measured), unit),
        engineering(float(predicted), unit),
        signed_percent(float(predicted / measured - 1)),
    )


def limits() -> str:
    """Return what the platforms without measured rows leave out."""
    others = [load(name) for name in available() if name not in compared()]
    return "\n".join(f"- `{p.name}` ({p.status}): {_sentence(p.note)}" for p in others if p.note)


def _sentence(text: str) -> str:
    """Text of a platform file as a sentence: not broken into lines, not read as Markdown."""
    plain = " ".join(text.split()).replace("*", r"\*").replace("<", r"\<")
    if not plain:
        return ""
    first = plain if plain.startswith("docs/") else plain[0].upper() + plain[1:]
    return first if first.endswith(".") else f"{first}."
