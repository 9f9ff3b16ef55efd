"""Published measurements beside the predictions of a comparison."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hwcost.measured import Figure, figures
from hwcost.percent import signed_percent
from hwcost.reports_format import Column
from hwcost.units import engineering

if TYPE_CHECKING:
    from hwcost.reports_compare import Entry


def measured_columns(entries: "Sequence[Entry]", metric: str, rank: int) -> list[Column]:
    """Return what was measured, and how far each prediction is from it; none if nothing was."""
    found = [entry.measured(metric) for entry in entries]
    if not any(found):
        return []
    cells = ["" if f is None else _value(f) for f in found]
    off = [signed_percent(entry.off(metric)) for entry in entries]
    return [
        Column(f"{metric} measured", cells, True, rank or 1, "measured"),
        Column(f"{metric} off", off, True, rank, "off"),
    ]


def raw_measured(entries: "Sequence[Entry]", metric: str) -> dict[str, list[Any]]:
    """Return the measured values in SI units, how far each prediction is off, and the sources."""
    found = [entry.measured(metric) for entry in entries]
    if not any(found):
        return {}
    unit = next(str(f.value.dimension).lower() for f in found if f)
    return {
        f"{metric}_measured_{unit}": [
            math.nan if f is None else float(f.value.value) for f in found
        ],
        f"{metric}_off": [entry.off(metric) for entry in entries],
        f"{metric}_measured_at": ["" if f is None else f.conditions for f in found],
        f"{metric}_measured_source": ["" if f is None else f.source for f in found],
    }


def measured_notes(entries: "Sequence[Entry]", metrics: Sequence[str]) -> list[str]:
    """Return where measurements come from, or of what there are any."""
    found = [f for entry in entries for m in metrics if (f := entry.measured(m))]
    if not found:
        known = sorted({f"{f.net} on {f.platform}" for f in figures()})
        return [f"No measurement is known of these; known: {', '.join(known)}."]
    of_source: dict[str, dict[str, None]] = defaultdict(dict)
    for one in found:
        of_source[one.source.partition(":")[0]][f"{one.platform} with {one.conditions}"] = None
    parts = [f"{'; '.join(told)} [{source}]" for source, told in of_source.items()]
    fitted = any(e.platform.calibration and any(map(e.measured, metrics)) for e in entries)
    caution = " A platform may have been fitted to these very figures." if fitted else ""
    return [f"Measured: {'; '.join(parts)}. off: prediction against measurement.{caution}"]


def _value(figure: Figure) -> str:
    return engineering(float(figure.value.value), str(figure.value.dimension))
