"""The shipped platforms as their files describe themselves, without building any of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hwcost.platforms
from hwcost.descriptor import read
from hwcost.reports_format import Column, Sheet, plain


def names() -> list[str]:
    """Return the names of the shipped platforms."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def listed() -> list[dict[str, Any]]:
    """Return name, metrics, engines, status and title of each shipped platform."""
    return [_described(name, _data(name)) for name in names()]


def as_table(found: Sequence[Mapping[str, Any]], width: int | None) -> str:
    """Return the list as text, fitted to ``width`` characters if given."""
    columns = [
        Column("platform", [p["platform"] for p in found]),
        Column("metrics", [", ".join(p["metrics"]) for p in found], rank=2),
        Column("engines", [", ".join(p["engines"]) or "-" for p in found], rank=1),
        Column("points", [", ".join(p["points"]) for p in found], rank=4),
        Column("status", [p["status"] for p in found]),
        Column("what it is", [p["title"] for p in found], least=20),
    ]
    return plain(Sheet("", columns), width)


def _folder() -> Path:
    return Path(hwcost.platforms.__path__[0])


def _data(name: str) -> Mapping[str, Any]:
    data = read(_folder() / f"{name}.yaml", f"{name}.yaml").data
    if "extends" not in data:
        return data
    from hwcost.loading import document

    return document(name).data


def _described(name: str, data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "platform": name,
        "metrics": {metric: str(spec["unit"]) for metric, spec in data["metrics"].items()},
        "engines": list(data.get("engines", {})),
        "points": list(data.get("points", {})),
        "status": data["status"],
        "title": data["title"],
    }
