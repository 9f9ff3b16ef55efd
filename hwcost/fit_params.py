"""The params of a platform file that a fit may change: where they stand, and within what."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hwcost.descriptor import Document
from hwcost.loading import build
from hwcost.platform import Engine, Param, Platform
from hwcost.units import parse_unit

Loc = tuple[str, ...]

_NUMBER = re.compile(r"^[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?\s*")


@dataclass(frozen=True)
class FitParam:
    """A param to be fitted, in SI base units.

    Attributes:
        loc: its keys in the file: ``("params", "clock")``, ``("engines", "npu", "params",
            "rate")``, ``("points", "1.0V", "p_mean")``.
        unit: as written in the file; empty for a plain number.
        scale: what one unit is in SI.
        start: the file's value.
    """

    loc: Loc
    unit: str
    scale: float
    start: float
    low: float
    high: float

    @property
    def name(self) -> str:
        """The param's name, with the engine or the operating point that it belongs to."""
        owner = {"engines": f"{self.loc[1]}.", "points": ""}.get(self.loc[0], "")
        point = f"@{self.loc[1]}" if self.loc[0] == "points" else ""
        return f"{owner}{self.loc[-1]}{point}"

    @property
    def column(self) -> str:
        """The column that holds it while a formula leaves it open."""
        return column_of(self.loc)

    @property
    def logarithmic(self) -> bool:
        """Whether it is fitted by its logarithm: all that cannot be 0."""
        return self.low > 0

    def inner(self, value: float) -> float:
        """Return a value as the solver sees it."""
        return math.log(value) if self.logarithmic else value / self._step

    def outer(self, inner: float) -> float:
        """Return the value of the solver's number, within the bounds."""
        value = math.exp(inner) if self.logarithmic else inner * self._step
        return min(max(value, self.low), self.high)

    def slope(self, value: float) -> float:
        """Return how much the value changes with the solver's number."""
        return value if self.logarithmic else self._step

    def spread(self, share: float) -> float:
        """Return the value at a share of the way between the bounds, both above 0 and below 1."""
        if self.logarithmic:
            return self.low * math.pow(self.high / self.low, share)
        if self.low == 0:
            # A size unknown over four decades.
            return self.high * math.pow(1e-4, 1 - share)
        return self.low + share * (self.high - self.low)

    @property
    def _step(self) -> float:
        return self.high - self.low


def column_of(loc: Loc) -> str:
    """Return the name of the column of a param, one that no size has."""
    return "/".join(loc)


def fit_params(platform: Platform) -> tuple[FitParam, ...]:
    """Return the params of a platform, at its operating point, that a fit may change."""
    found = []
    for engine in (None, *platform.engines.values()):
        params = platform.params if engine is None else engine.params
        for name, param in params.items():
            if param.fit:
                found.append(_fit_param(location(platform, engine, name), param))
    return tuple(found)


def location(platform: Platform, engine: Engine | None, name: str) -> Loc:
    """Return the keys under which the file has the value of a param that an engine reads."""
    if engine is not None and name in engine.params:
        return ("engines", engine.name, "params", name)
    point = platform.point
    data: Mapping[str, Any] = platform.document.data.get("points") or {}
    if point and point != platform.points[0] and name in data.get(point, {}):
        return ("points", point, name)
    return ("params", name)


def _fit_param(loc: Loc, param: Param) -> FitParam:
    assert param.bounds is not None
    unit = _NUMBER.sub("", param.quantity.text)
    scale = float(parse_unit(unit).value) if unit else 1.0
    low, high = (float(bound) for bound in param.bounds)
    return FitParam(loc, unit, scale, float(param.quantity.value), low, high)


def with_values(platform: Platform, texts: Mapping[Loc, str | float]) -> Platform:
    """Return the platform with other values of params, at the same operating point.

    Args:
        texts: where the value stands -> the value with its unit.
    """
    data = platform.document.data
    for loc, text in texts.items():
        data = _replaced(data, loc, text)
        if loc[0] == "params" and platform.points:
            first = ("points", platform.points[0], loc[1])
            if loc[1] in data["points"][platform.points[0]]:
                data = _replaced(data, first, text)
    document = Document(data, platform.document.lines, platform.document.name)
    return build(document, platform.point or None)


def _replaced(data: Any, loc: Loc, text: str | float) -> Any:
    """A copy of ``data`` in which the param at ``loc`` has another value."""
    if not loc:
        return {**data, "value": text} if isinstance(data, dict) else text
    return {**data, loc[0]: _replaced(data[loc[0]], loc[1:], text)}
