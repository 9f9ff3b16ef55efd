"""A fit as text: params, errors, and the rows that are furthest off."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from hwcost.fit_errors import Errors
from hwcost.fit_rounding import Fitted, plain
from hwcost.percent import rough_percent
from hwcost.reports_format import Column, Sheet
from hwcost.reports_format import plain as as_text
from hwcost.units import engineering

if TYPE_CHECKING:
    from hwcost.fit import Fit

#: Rows shown, those furthest off.
MOST_ROWS = 10


def text(fit: "Fit", width: int | None = None, rows: int = MOST_ROWS) -> str:
    """Return the fit as text, fitted to ``width`` characters if given."""
    sheets = [params_sheet(fit), errors_sheet(fit), rows_sheet(fit, rows)]
    return "\n\n".join(as_text(sheet, width) for sheet in sheets)


def params_sheet(fit: "Fit") -> Sheet:
    """Return the params: the file's value, the new one, what is known of it."""
    count = len(fit.measurements.readings)
    title = f"{fit.platform.name} fitted to {count} values of {fit.measurements.name}"
    columns = [
        Column("param", [f.param.name for f in fit.params]),
        Column("was", [_text(f.param.start, f) for f in fit.params], True, 1),
        Column("is", [f.text or "kept" for f in fit.params], True),
        Column("error", [_error(f) for f in fit.params], True),
        Column("bounds", [_bounds(f) for f in fit.params], rank=2),
    ]
    remarks = [(f.param.name, _remark(f)) for f in fit.params if _remark(f)]
    return Sheet(title, columns, results=remarks)


def _text(value: float, fitted: Fitted) -> str:
    return f"{plain(value / fitted.param.scale, 4)} {fitted.param.unit}".strip()


def _error(fitted: Fitted) -> str:
    return "-" if fitted.error is None else f"±{rough_percent(fitted.error)}"


def _remark(fitted: Fitted) -> str:
    if fitted.given:
        return f"right only with {', '.join(fitted.given)} as kept"
    return f"not identified: {fitted.note}" if fitted.note else ""


def _bounds(fitted: Fitted) -> str:
    low, high = (
        plain(b / fitted.param.scale, 3) if b else "0"
        for b in (fitted.param.low, fitted.param.high)
    )
    return f"{low} to {high}"


def errors_sheet(fit: "Fit") -> Sheet:
    """Return the errors by metric, on the rows themselves and on networks left out."""
    errors = fit.errors
    columns = [
        Column("metric", [e.metric for e in errors]),
        Column("of", [e.of for e in errors]),
        Column("rows", [str(e.rows) for e in errors], True),
        Column("median", [rough_percent(e.median) for e in errors], True),
        Column("p90", [rough_percent(e.p90) for e in errors], True),
        Column("rank corr.", [_rank(e) for e in errors], True, 1),
        Column("unseen median", [_share(e.unseen_median) for e in errors], True, short="unseen"),
        Column("unseen p90", [_share(e.unseen_p90) for e in errors], True),
    ]
    return Sheet("", columns, notes=[_how_unseen(fit)])


def _rank(errors: Errors) -> str:
    return "-" if errors.rank is None else f"{errors.rank:.3f}"


def _share(share: float | None) -> str:
    return "-" if share is None else rough_percent(share)


def _how_unseen(fit: "Fit") -> str:
    if fit.unseen is None:
        return "unseen: not known, as all rows are of one network"
    return "unseen: errors on networks that were left out of the fit, a few at a time"


def rows_sheet(fit: "Fit", most: int) -> Sheet:
    """Return the rows furthest off."""
    off = residuals(fit)
    order = sorted(range(len(off)), key=lambda i: -abs(off[i]))[:most]
    readings = [fit.measurements.readings[i] for i in order]
    unit = [str(_unit(fit, r.metric)) for r in readings]
    measured, predicted = fit.measured.tolist(), fit.predicted.tolist()
    columns = [
        Column(
            "row",
            [r.at for r in readings],
            rank=2,
            short="line",
            narrow=[r.at.rpartition(":")[2] for r in readings],
        ),
        Column("name", [r.name for r in readings], least=16),
        Column("kind", [_kind(fit, i) for i in order], rank=3),
        Column("metric", [r.metric for r in readings], rank=1),
        Column(
            "measured",
            [engineering(measured[i], u) for i, u in zip(order, unit, strict=True)],
            True,
        ),
        Column(
            "predicted",
            [engineering(predicted[i], u) for i, u in zip(order, unit, strict=True)],
            True,
        ),
        Column("off", [_off(off[i]) for i in order], True),
    ]
    return Sheet(f"the {len(order)} rows furthest off", columns)


def _kind(fit: "Fit", index: int) -> str:
    return fit.kinds[index][0] if fit.measurements.readings[index].kind else "network"


def residuals(fit: "Fit") -> list[float]:
    """Return the logarithm of predicted over measured for each reading."""
    off: list[float] = (fit.predicted / fit.measured).log().tolist()
    return off


def _off(log_ratio: float) -> str:
    ratio = math.exp(log_ratio)
    return f"{100 * (ratio - 1):+.1f} %" if 0.1 < ratio < 10 else f"x{ratio:.2g}"


def _unit(fit: "Fit", metric: str) -> object:
    if metric not in fit.platform.metrics:
        return "cycle"
    return fit.platform.metrics[metric].unit.dimension


def rows_table(fit: "Fit") -> dict[str, Sequence[object]]:
    """Return every row as columns of raw numbers, SI units."""
    readings = fit.measurements.readings
    columns: dict[str, Sequence[object]] = {
        name: [getattr(reading, name) for reading in readings]
        for name in ("at", "net", "layer", "kind", "point", "metric")
    }
    columns |= {"measured": fit.measured.tolist(), "predicted": fit.predicted.tolist()}
    columns["off"] = [math.exp(off) - 1 for off in residuals(fit)]
    if fit.unseen is not None:
        columns["unseen"] = fit.unseen.tolist()
    return columns


def rows_csv(fit: "Fit") -> str:
    """Return every row as CSV."""
    import csv
    import io

    columns = rows_table(fit)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return file.getvalue()


def summary(fit: "Fit") -> dict[str, object]:
    """Return the fit as plain data, SI units."""
    columns = rows_table(fit)
    return {
        "platform": fit.platform.name,
        "measurements": fit.measurements.name,
        "params": [
            {
                "name": f.param.name,
                "value": f.value,
                "text": f.text,
                "error": f.error,
                "note": f.note,
                "given": list(f.given),
            }
            for f in fit.params
        ],
        "errors": [asdict(errors) for errors in fit.errors],
        "rows": [
            dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
        ],
    }
