"""Published measurements of networks of the zoo on platforms, to put beside predictions."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from hwcost.platform import Platform
from hwcost.units import Quantity, parse_quantity

FILE = "measured.csv"


@dataclass(frozen=True)
class Figure:
    """One measured cost of a network.

    Attributes:
        net: name in the zoo.
        platform: name of the platform, with ``@`` and the operating point where it has several.
        bits: precision at which it ran, such as ``w8a8``.
        conditions: software, clock, voltage.
    """

    net: str
    platform: str
    metric: str
    value: Quantity
    bits: str
    conditions: str
    source: str


@cache
def figures() -> tuple[Figure, ...]:
    """Return all figures of ``platforms/measured.csv``."""
    text = files("hwcost.platforms").joinpath(FILE).read_text(encoding="utf-8")
    return tuple(
        Figure(
            row["net"],
            row["platform"],
            row["metric"],
            parse_quantity(row["value"]),
            row["bits"],
            row["conditions"],
            row["source"],
        )
        for row in csv.DictReader(text.splitlines())
    )


def figure(net: str, platform: Platform, metric: str) -> Figure | None:
    """Return what was measured of a network on a platform at its operating point, None if unknown.

    Args:
        net: name in the zoo.
    """
    name = str(platform.document.data["name"])
    names = {name} if platform.point == "" else {f"{name}@{platform.point}"}
    names |= {platform.name}
    for one in figures():
        if one.net == net and one.metric == metric and one.platform in names:
            return one
    return None
