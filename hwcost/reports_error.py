"""How far a platform's figures are off, as reports say it, and what nobody measured."""

import math
from collections.abc import Iterable, Sequence

from hwcost import calibration_reach
from hwcost.calibration import MeasuredError
from hwcost.calibration_reach import error_text, share_of, short_error, unlike
from hwcost.percent import percent
from hwcost.platform import Platform
from hwcost.reports_costs import Priced
from hwcost.reports_format import Column

#: Ops outside the calibration that cost less than this share are not worth a line.
_LEAST_SHARE = 0.01

#: What the ``±`` of a column means.
MEANING = (
    "±: nine of ten measured rows are within (p90); rows left out of the fit, where that was tried."
)


def total_error(costs: Priced, metric: str) -> MeasuredError | None:
    """Return the measured error of a network's total, None where there is none.

    A lower bound has none, nor has a total of which much is unlike all that was measured.
    ``costs`` has its rows.
    """
    if costs.platform.error(metric, "nets") is None or costs.partial(metric):
        return None
    shares = costs.share(metric)
    return calibration_reach.total_error(costs.platform, metric, costs.workload, costs.plan, shares)


def with_error(costs: Priced, metric: str) -> str:
    """Return a total with its measured error: ``12.5 ms, ±14 % (p90, 45 rows)``."""
    error, text = total_error(costs, metric), costs.total_text(metric)
    return text if error is None else f"{text}, {error_text(error)}"


def error_column(
    metric: str, errors: Sequence[MeasuredError | None], rank: int, full: bool = True
) -> list[Column]:
    """Return the column of measured errors beside a metric, none where no platform has any.

    Args:
        full: whether it says how many rows there were, given the width.
    """
    if not any(errors):
        return []
    short = ["" if e is None else short_error(e) for e in errors]
    cells = ["" if e is None else error_text(e) for e in errors] if full else short
    return [Column(f"{metric} error", cells, rank=rank, short="±", narrow=short)]


def raw_errors(
    metric: str, errors: Sequence[MeasuredError | None]
) -> dict[str, list[float | str | None]]:
    """Return the columns of measured errors for programs: 0.14 for 14 %, and ``45 layers``."""
    if not any(errors):
        return {}
    return {
        f"{metric}_error_p90": [math.nan if e is None else e.expected for e in errors],
        f"{metric}_error_of": ["" if e is None else f"{e.rows} {e.of}" for e in errors],
    }


def calibration_facts(platform: Platform, metrics: Iterable[str]) -> list[tuple[str, str]]:
    """Return lines on what a platform was compared with, and its errors by the metrics given."""
    known = platform.calibration
    if known is None:
        return []
    facts = [("calibrated", f"{known.rows} rows of {known.data}; {known.date}")]
    facts += [("software", known.software)] if known.software else []
    facts += [("rows", known.note)] if known.note else []
    elsewhere = other_point(platform)
    errors = [_said(m, error) for m in metrics for error in known.errors.get(m, ())]
    lines = [elsewhere] if elsewhere else errors
    return facts + [("error" if i == 0 else "", text) for i, text in enumerate(lines)]


def _said(metric: str, error: MeasuredError) -> str:
    own = _pair(error.median, error.p90)
    at = f" at {' and '.join(error.points)}" if error.points else ""
    text = f"{metric}: {own} ({error.rows} {error.of}{at})"
    if error.unseen_p90 is None:
        return text
    return f"{text}, on networks left out of the fit {_pair(error.unseen_median, error.unseen_p90)}"


def _pair(median: float | None, p90: float) -> str:
    return f"{'' if median is None else f'median {percent(median)}, '}p90 {percent(p90)}"


def other_point(platform: Platform) -> str:
    """Return where the error was measured, if not at this operating point; else ``""``."""
    known = platform.calibration
    if known is None or not platform.point or platform.point in known.points:
        return ""
    return f"not known at {platform.point}; measured at {' and '.join(known.points)}"


def not_measured(costs: Priced) -> str:
    """Return what of a network no row of the platform's calibration was like; else ``""``.

    Ops of a kind, or at bits, that no row had are named with their share of the first metric
    that has a measured error; small shares are left out. ``costs`` has its rows.
    """
    metric = next((m for m in costs.models if costs.platform.error(m) is not None), "")
    if not metric:
        return ""
    shares = costs.share(metric)
    parts = [
        f"{_counted(len(rows), what)} ({percent(share)} of {metric})"
        for what, rows in unlike(costs.platform, costs.workload, costs.plan).items()
        if (share := share_of(shares, rows)) >= _LEAST_SHARE
    ]
    return f"outside the calibration: {', '.join(parts)}" if parts else ""


def _counted(number: int, what: str) -> str:
    """``2 linear`` for a kind of op, ``2 ops at w4a8`` for bits."""
    ops = f"{'op' if number == 1 else 'ops'} " if what.startswith("at ") else ""
    return f"{number} {ops}{what}"
