"""What the commands about one platform print: the platform, the verdict on its file."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwcost.errors import HwcostError
from hwcost.explain_names import param_line
from hwcost.explain_text import Section, sections_text
from hwcost.loading import load
from hwcost.platform import Check, Engine, Metric, Platform


def shown(platform: Platform, width: int | None) -> str:
    """Return a platform as text: its numbers, engines, formulas and metrics."""
    return sections_text(f"{platform.name}: {platform.title}", _sections(platform), width)


def _sections(platform: Platform) -> list[Section]:
    data = platform.document.data
    about = [("status", platform.status), ("file", platform.document.name)]
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
        Section(
            "Tables", [line for n, t in data.get("tables", {}).items() for line in _table(n, t)]
        ),
        Section(
            "Memories", [(n, _memory(m.size.text, m.holds)) for n, m in platform.memories.items()]
        ),
        Section("Shared formulas", [(n, str(text)) for n, text in data.get("let", {}).items()]),
        *(_engine(platform, engine) for engine in platform.engines.values()),
        Section("Limits", [(limit.name, limit.text) for limit in platform.limits]),
        Section("Checks", [(check.metric, _check(check)) for check in platform.checks]),
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
    source = f" [{op['source']}]" if "source" in op else ""
    names = f" ({', '.join(kinds)})" if len(kinds) > 3 else ""
    return f"{text}{where}{scratch}{names}{source}"


def _check(check: Check) -> str:
    sizes = ", ".join(f"{name}={value:g}" for name, value in check.sizes.items())
    due = f"{check.value.text} within {100 * check.tolerance:.3g} %"
    return f"{check.kind} {sizes}: {due} [{check.source}]"


@dataclass(frozen=True)
class Verdict:
    """Whether a platform file is right: lines to print, and whether all is well."""

    lines: list[str]
    ok: bool
    data: dict[str, Any]


def checked(file: str | Path) -> Verdict:
    """Return the verdict on a file: what it prices, and how far it is from its golden points.

    Raises:
        HwcostError: the file is wrong.
    """
    platform = load(file)
    results = [_measured(platform, check) for check in platform.checks]
    missed = sum(not good for _, good in results)
    verdict = f"{missed} of {len(results)} golden points missed" if missed else "OK"
    lines = [f"{file}: {verdict}, platform {platform.name!r} ({platform.status})"]
    for engine in platform.engines.values():
        kinds = [k for k, e in engine.entries.items() if any(not one.unsupported for one in e)]
        more = ", all others by default" if engine.default else ""
        lines.append(f"  {engine.name} prices {', '.join(kinds) or 'nothing by name'}{more}")
    metrics = ", ".join(f"{m.name} ({m.unit.text})" for m in platform.metrics.values())
    lines.append(f"  metrics: {metrics}")
    lines += [line for line, _ in results]
    if not platform.checks:
        lines.append("  no golden points to check")
    data = {
        "file": str(file),
        "platform": platform.name,
        "ok": not missed,
        "checks": [{"text": line.strip(), "ok": good} for line, good in results],
    }
    return Verdict(lines, not missed, data)


def _measured(platform: Platform, check: Check) -> tuple[str, bool]:
    """One golden point: a line, and whether it is within its tolerance."""
    from hwcost.costmodel import CostModel
    from hwcost.units import engineering
    from hwcost.workload import Workload

    sizes = ", ".join(f"{name}={value:g}" for name, value in check.sizes.items())
    head = f"  {check.at}: {check.kind} {sizes}: {check.metric}"
    try:
        workload = Workload.from_columns(check.kind, **check.sizes)
        workload = workload.with_engines(check.engine) if check.engine else workload
        model = CostModel(platform, check.metric)
        value = float(model.total(workload)) * float(model.metric.unit.value)
    except HwcostError as error:
        return f"{head} cannot be computed: {error}", False
    due, unit = float(check.value.value), str(check.value.dimension)
    off = abs(value - due) / abs(due) if due else float(value != 0)
    ok = off <= check.tolerance
    verdict = "within" if ok else "OUTSIDE"
    found, expected = engineering(value, unit), engineering(due, unit)
    return (
        f"{head} is {found}, {check.source} gives {expected}:"
        f" {100 * off:.3g} % off, {verdict} {100 * check.tolerance:.3g} %",
        ok,
    )
