"""A fitted platform as a file: the original text with the values replaced."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hwcost.descriptor_edit import edited, scalar, with_section
from hwcost.errors import FitError
from hwcost.fit_errors import Errors
from hwcost.fit_rounding import Fitted
from hwcost.formula import symbol
from hwcost.loading import available, load
from hwcost.percent import rough_percent
from hwcost.platform import Platform
from hwcost.writing import writing

if TYPE_CHECKING:
    from hwcost.descriptor import Loc
    from hwcost.fit import Fit, Status

#: What ``source`` of a fitted param is, and starts of ``note`` where it is not known, or not alone.
SOURCE, UNKNOWN, GIVEN = "calibration", "not identified by the data", "right only with"

#: Sources, and conditions, named in the file; more are counted.
_MOST_SOURCES = 4


def write(fit: "Fit", path: Path, date: str, status: "Status") -> Platform:
    """Write the file and return the platform that it holds.

    Raises:
        FitError: the platform was not loaded by name or path, or the file cannot be written.
    """
    made = text(fit, path, date, status)
    with writing(path):
        path.write_text(made, encoding="utf-8", newline="\n")
    return load(path.resolve())


def text(fit: "Fit", path: Path, date: str, status: "Status") -> str:
    """Return the text of the platform's file with the fitted values.

    Args:
        path: where it will stand, for a relative path in ``extends``.
    """
    if fit.source is None:
        raise FitError("the platform was not loaded by name or path; there is no file to change")
    original = fit.source.read_text(encoding="utf-8-sig")
    changes: dict[Loc, str | float | None] = {("status",): status}
    changes |= _extends(fit, path)
    for fitted in fit.params:
        changes |= _param_changes(fit, fitted)
    return with_section(
        edited(original, changes, fit.source.name), "calibration", _section(fit, date)
    )


def _extends(fit: "Fit", path: Path) -> "dict[Loc, str | float | None]":
    from hwcost.descriptor import read

    assert fit.source is not None
    parent = read(fit.source, fit.source.name).data.get("extends")
    if parent is None or parent in available():
        return {}
    here = os.path.relpath(fit.source.parent / parent, path.resolve().parent)
    return {("extends",): Path(here).as_posix()}


def _param_changes(fit: "Fit", fitted: Fitted) -> "dict[Loc, str | float | None]":
    loc, document = fitted.param.loc, fit.platform.document.data
    changes: dict[Loc, str | float | None] = {}
    if loc[0] == "points":
        plain = not isinstance(document["points"][loc[1]][loc[2]], dict)
        if fitted.text:
            changes[loc if plain else (*loc, "value")] = _value(fitted)
        return changes
    if fitted.text:
        changes[*loc, "value"] = _value(fitted)
        changes[*loc, "source"] = SOURCE
        changes |= _at_first_point(fit, loc, _value(fitted))
    known = None if fitted.error is None else rough_percent(fitted.error)
    changes[*loc, "uncertainty"] = known
    old = _param_data(document, loc).get("note") or ""
    note = "; ".join(filter(None, (_own_note(old), _remark(fitted))))
    if note != old:
        changes[*loc, "note"] = note or None
    return changes


def _own_note(note: str) -> str:
    """A note without what an earlier fit said."""
    for start in (UNKNOWN, GIVEN):
        note = "" if note.startswith(start) else note.split(f"; {start}")[0]
    return note


def _remark(fitted: Fitted) -> str:
    if fitted.given:
        return f"{GIVEN} {', '.join(fitted.given)}, which the data do not identify"
    return f"{UNKNOWN}: {fitted.note}" if fitted.note else ""


def _value(fitted: Fitted) -> str | float:
    return fitted.text if fitted.param.unit else float(fitted.text)


def _at_first_point(fit: "Fit", loc: "Loc", value: str | float) -> "dict[Loc, str | float | None]":
    """The first operating point says what ``params`` say."""
    platform = fit.platform
    if loc[0] != "params" or not platform.points:
        return {}
    here = platform.document.data["points"][platform.points[0]]
    if loc[1] not in here:
        return {}
    at: Loc = ("points", platform.points[0], loc[1])
    return {(*at, "value") if isinstance(here[loc[1]], dict) else at: value}


def _param_data(data: "dict[str, object]", loc: "Loc") -> "dict[str, str]":
    for key in loc:
        data = data[key]  # type: ignore[index,assignment]
    return data  # type: ignore[return-value]


def _section(fit: "Fit", date: str) -> str:
    """The lines of ``calibration``."""
    measured = fit.measurements
    old = fit.platform.calibration
    software = ", ".join(measured.software) or (old.software if old else "")
    lines = ["calibration:", f"  data: {scalar(_data(fit))}"]
    lines += [f"  rows: {len({r.at for r in measured.readings})}", f"  date: {date}"]
    lines += [f"  software: {scalar(software)}"] if software else []
    lines += [f"  note: {scalar('; '.join(held))}"] if (held := _few(measured.conditions)) else []
    return "\n".join(lines + _covered(fit) + _stated(fit)) + "\n"


def _stated(fit: "Fit") -> list[str]:
    """The errors of the platform's metrics; those of cycles are those of a latency made of them."""
    latency = {e.of for e in fit.errors if e.metric == "latency"}
    same = _is_cycles(fit.platform)
    errors = [
        replace(e, metric="latency") if same and e.metric == "cycles" and e.of not in latency else e
        for e in fit.errors
    ]
    lines = []
    for metric in dict.fromkeys(e.metric for e in errors if e.metric in fit.platform.metrics):
        found = [_error(e, _own_points(fit, e)) for e in errors if e.metric == metric]
        value = found[0] if len(found) == 1 else f"[{', '.join(found)}]"
        lines.append(f"    {metric}: {value}")
    return ["  errors:", *lines] if lines else []


def _is_cycles(platform: Platform) -> bool:
    """Whether latency is cycles times a number, so that both are off by the same share."""
    latency, cycles = platform.metrics.get("latency"), symbol("cycles")
    if latency is None or latency.row is None or cycles not in latency.row.free_symbols:
        return False
    return not (latency.row / cycles).free_symbols - platform.numbers().keys()


def _measured_points(fit: "Fit", points: Iterable[str]) -> list[str]:
    """Operating points in the order of the file."""
    named = {point or fit.platform.point for point in points}
    return [point for point in fit.platform.points if point in named]


def _own_points(fit: "Fit", errors: Errors) -> list[str]:
    """The operating points of some rows, where they are not those of all."""
    own = _measured_points(fit, errors.points)
    return own if own != _measured_points(fit, (r.point for r in fit.measurements.readings)) else []


def _error(errors: Errors, points: Sequence[str]) -> str:
    names = ("median", "p90", "unseen_median", "unseen_p90")
    shares = {name: getattr(errors, name) for name in names}
    given = [
        f"{name}: {rough_percent(share)}" for name, share in shares.items() if share is not None
    ]
    given += [f"rows: {errors.rows}", f"of: {errors.of}"]
    given += [f"points: [{', '.join(map(scalar, points))}]"] if points else []
    return f"{{{', '.join(given)}}}"


def _data(fit: "Fit") -> str:
    return ", ".join([fit.measurements.name, *_few(fit.measurements.sources)])


def _few(texts: Sequence[str]) -> list[str]:
    """The first texts, and how many more there are."""
    more = len(texts) - _MOST_SOURCES
    return [*texts[:_MOST_SOURCES], *([f"{more} more"] if more > 0 else [])]


def _covered(fit: "Fit") -> list[str]:
    """Kinds, bits and operating points among the rows."""
    readings = fit.measurements.readings
    kinds = dict.fromkeys(kind for of_one in fit.kinds for kind in of_one)
    lines = [f"  kinds: [{', '.join(kinds)}]"]
    for name in ("w_bits", "a_bits"):
        found = {b for r in readings for b in r.workload.column(name).tolist() if b == b}
        if found:
            lines.append(f"  {name}: [{', '.join(f'{b:g}' for b in sorted(found))}]")
    points = _measured_points(fit, (r.point for r in readings))
    if points:
        lines.append(f"  points: [{', '.join(map(scalar, points))}]")
    return lines
