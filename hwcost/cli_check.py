"""What ``hwcost check`` prints: the verdict on a platform's file, and on what it predicts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hwcost.calibration import Check
from hwcost.checks import Result, results
from hwcost.explain_names import source_name
from hwcost.explain_text import folded
from hwcost.loading import load, split_point
from hwcost.percent import percent, signed_percent
from hwcost.platform import Platform
from hwcost.reports_format import Column, Sheet, plain
from hwcost.units import engineering


@dataclass(frozen=True)
class Verdict:
    """Whether a platform is right: lines to print, and the same as plain data."""

    lines: list[str]
    data: dict[str, Any]


def checked(platform: str, width: int | None = None) -> Verdict:
    """Return the verdict on a platform: what it prices, and how far it is from known costs.

    Args:
        platform: name or path; with an operating point, only the checks of this point count.

    Raises:
        HwcostError: there is no such platform, or its file is wrong.
    """
    loaded, point = load(platform), split_point(platform)[1]
    found = results(loaded, point)
    missed = sum(not result.ok for result in found)
    verdict = f"{missed} of {len(found)} golden points missed" if missed else "OK"
    lines = folded(f"{platform}: {verdict}, platform {loaded.name!r} ({loaded.status})", width)
    lines += _indented(_prices(loaded), width)
    lines += _grid(found, width) if found else ["  no golden points to check"]
    data = {
        "file": platform,
        "platform": loaded.name,
        "status": loaded.status,
        "ok": not missed,
        "checks": [_data(result) for result in found],
    }
    return Verdict(lines, data)


def summary(found: Sequence[Mapping[str, Any]]) -> str:
    """Return one line on several verdicts, as in ``Verdict.data``."""
    golden = [check for one in found for check in one.get("checks", ())]
    missed = sum(not check["ok"] for check in golden)
    wrong = sum("error" in one for one in found)
    points = "golden point" if len(golden) == 1 else "golden points"
    text = f"{len(found)} platforms, {len(golden)} {points}"
    text += f", {missed} missed" if missed else ""
    text += f", {wrong} with an error" if wrong else ""
    return text if missed or wrong else f"{text}, all within their tolerances"


def what(check: Check) -> str:
    """Return what a check prices: ``conv cin=16, cout=32``, or a network's name."""
    sizes = ", ".join(f"{name}={value:g}" for name, value in check.sizes.items())
    engine = f" on {check.engine}" if check.engine else ""
    return (check.zoo or f"{check.kind} {sizes}") + engine


def _prices(platform: Platform) -> list[str]:
    """What each engine prices, and the metrics."""
    lines = []
    for engine in platform.engines.values():
        kinds = [k for k, e in engine.entries.items() if any(not one.unsupported for one in e)]
        more = ", all others by default" if engine.default else ""
        lines.append(f"{engine.name} prices {', '.join(kinds) or 'nothing by name'}{more}")
    metrics = ", ".join(f"{m.name} ({m.unit.text})" for m in platform.metrics.values())
    points = [f"operating points: {', '.join(platform.points)}"] if platform.points else []
    return [*lines, f"metrics: {metrics}", *points]


def _grid(found: Sequence[Result], width: int | None) -> list[str]:
    units = [str(r.check.value.dimension) for r in found]
    measured = [engineering(r.measured, u) for r, u in zip(found, units, strict=True)]
    predicted = [engineering(r.predicted, u) for r, u in zip(found, units, strict=True)]
    points = [r.platform.point for r in found]
    verdicts = ["" if r.ok else "OUTSIDE" for r in found]
    sources = [source_name(r.check.source, r.platform.sources) for r in found]
    columns = [
        Column("line", [r.check.at for r in found], rank=3),
        Column("golden point", [what(r.check) for r in found], least=16),
        *([Column("at", points, rank=1)] if any(points) else []),
        Column("metric", [r.check.metric for r in found], rank=1),
        Column("measured", measured, True),
        Column("predicted", predicted, True),
        Column("error", [signed_percent(r.error) or "-" for r in found], True),
        Column("tolerance", [percent(r.check.tolerance) for r in found], True, short="tol"),
        *([Column("", verdicts)] if any(verdicts) else []),
        Column("source", sources, rank=2, least=20),
    ]
    failures = [f"{r.check.at}: cannot be computed: {r.failure}" for r in found if r.failure]
    text = plain(Sheet("", columns, notes=failures), width and width - 2)
    return [f"  {line}".rstrip() for line in text.splitlines()]


def _indented(lines: Sequence[str], width: int | None) -> list[str]:
    return [f"  {part}" for line in lines for part in folded(line, width and width - 2)]


def _data(result: Result) -> dict[str, Any]:
    check = result.check
    return {
        "at": check.at,
        "golden_point": what(check),
        "point": result.platform.point or None,
        "metric": check.metric,
        "unit": str(check.value.dimension),
        "measured": result.measured,
        "predicted": None if math.isnan(result.predicted) else result.predicted,
        "error": result.error if math.isfinite(result.error) else None,
        "tolerance": check.tolerance,
        "ok": result.ok,
        "failure": result.failure or None,
        "source": check.source,
    }
