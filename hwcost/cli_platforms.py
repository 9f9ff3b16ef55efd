"""What ``hwcost show`` prints of a platform."""

from collections.abc import Iterable, Mapping
from typing import Any

from hwcost.calibration import Check
from hwcost.cli_check import what
from hwcost.explain_names import param_line, source_name
from hwcost.explain_text import Section, sections_text
from hwcost.platform import Engine, Metric, Platform
from hwcost.reports_error import calibration_facts


def shown(platform: Platform, width: int | None) -> str:
    """Return a platform as text: its numbers, engines, formulas and metrics."""
    return sections_text(f"{platform.name}: {platform.title}", _sections(platform), width)


def _sections(platform: Platform) -> list[Section]:
    data = platform.document.data
    about = [("status", platform.status), ("file", platform.document.name)]
    about += calibration_facts(platform, platform.metrics)
    about += [("leaves out", platform.note)] if platform.note else []
    about += [(f"source {name}", text) for name, text in platform.sources.items()]
    if platform.deploy:
        bits = "".join(f"{name[0]}{b}" for name, b in platform.deploy.items())
        about.append(
            ("precision", f"a float model is priced at {bits} where the engine leaves a choice")
        )
    return [
        Section("About", about),
        Section("Metrics", [(m.name, _metric(m)) for m in platform.metrics.values()]),
        Section(
            "Numbers", [(n, param_line(p, platform.sources)) for n, p in platform.params.items()]
        ),
        Section("Operating points", [(p, _point(platform, p)) for p in platform.points]),
        Section(
            "Tables", [line for n, t in data.get("tables", {}).items() for line in _table(n, t)]
        ),
        Section(
            "Memories", [(n, _memory(m.size.text, m.holds)) for n, m in platform.memories.items()]
        ),
        Section("Shared formulas", [(n, str(text)) for n, text in data.get("let", {}).items()]),
        *(_engine(platform, engine) for engine in platform.engines.values()),
        Section("Limits", [(limit.name, limit.text) for limit in platform.limits]),
        Section("Checks", [(c.metric, _check(c, platform.sources)) for c in platform.checks]),
    ]


def _metric(metric: Metric) -> str:
    how = f", ops: {metric.ops}" if metric.ops != "sum" else ""
    how += f", engines: {metric.engines}" if metric.engines != "sum" else ""
    title = f"; {metric.title}" if metric.title else ""
    note = f"; {metric.note}" if metric.note else ""
    return f"{metric.text}  [{metric.unit.text}{how}]{title}{note}"


def _memory(size: str, holds: Iterable[str]) -> str:
    held = " and ".join(holds)
    return f"{size}, holds {held}" if held else size


def _point(platform: Platform, point: str) -> str:
    """What differs at an operating point, from the default one or the one shown."""
    there = platform.at(point)
    listed = [platform.document.data["points"][p] for p in platform.points]
    names = dict.fromkeys(name for values in listed for name in values)
    numbers = ", ".join(f"{n} {there.params[n].quantity.text}" for n in names)
    here = "; the numbers above" if point == platform.point else ""
    return f"{numbers}{here}" if numbers else here.removeprefix("; ")


def _table(name: str, spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    axes = ", ".join(f"{axis} in {values}" for axis, values in spec["axes"].items())
    lines = [(name, f"[{spec['unit']}] by {axes} [{spec['source']}]")]
    for row in spec["values"]:
        lines.append(("", "  ".join(map(str, row)) if isinstance(row, list) else str(row)))
    return lines


def _engine(platform: Platform, engine: Engine) -> Section:
    spec = platform.document.data["engines"][engine.name]
    bits = "; ".join(f"{name} {', '.join(map(str, b))}" for name, b in engine.precision.items())
    lines = [("computes at", bits)] if bits else []
    lines += [(name, param_line(p, platform.sources)) for name, p in engine.params.items()]
    for op in spec.get("ops", []):
        kinds = [op["match"]] if isinstance(op["match"], str) else op["match"]
        lines.append(
            (f"{len(kinds)} kinds" if len(kinds) > 3 else ", ".join(kinds), _op(op, kinds))
        )
    if "default" in spec:
        lines.append(("all others", f"cycles = {spec['default']['cycles']} (the default)"))
    title = f": {engine.title}" if engine.title else ""
    return Section(f"Engine {engine.name}{title}", lines)


def _op(op: Mapping[str, Any], kinds: list[str]) -> str:
    """An op entry on one line, as the file has it."""
    if "as" in op:
        sizes = ", ".join(f"{n} = {e}" for n, e in op["as"].items() if n != "match")
        text = f"as {op['as']['match']}" + (f" with {sizes}" if sizes else "")
    else:
        key = next(k for k in ("cycles", "free", "unsupported") if k in op)
        text = f"{key} = {op[key]}" if key == "cycles" else f"{key}: {op[key]}"
    where = f", where {op['where']}" if "where" in op else ""
    scratch = f", scratch = {op['scratch']}" if "scratch" in op else ""
    scratch += "".join(
        f", reserved {name} = {text}" for name, text in op.get("reserved", {}).items()
    )
    scratch += ", in place" if op.get("in_place") else ""
    source = f" [{op['source']}]" if "source" in op else ""
    names = f" ({', '.join(kinds)})" if len(kinds) > 3 else ""
    return f"{text}{where}{scratch}{names}{source}"


def _check(check: Check, sources: Mapping[str, str]) -> str:
    due = f"{check.value.text} within {100 * check.tolerance:.3g} %"
    point = f" at {check.point}" if check.point else ""
    return f"{what(check)}{point}: {due} [{source_name(check.source, sources)}]"
