"""Operating points of a platform file, and the calibration that says how far it is off."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hwcost.calibration import Calibration, MeasuredError
from hwcost.definitions import Definitions
from hwcost.dimensions import require
from hwcost.errors import DescriptorError, UnitError, UnknownName, did_you_mean, suggestion
from hwcost.platform import Metric, Param
from hwcost.schema import PlatformSpec
from hwcost.schema_measured import ON, ErrorSpec, PointValue
from hwcost.units import Dimension, parse_quantity

#: Names that can stand behind ``@`` on a command line.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*", re.ASCII)


@dataclass(frozen=True)
class PointMaker:
    """Turns the operating points of a file into params."""

    spec: PlatformSpec
    known: Definitions

    def points(self, params: Mapping[str, Param]) -> dict[str, dict[str, Param]]:
        """Return point -> the params that stand in for those of the same name there.

        Raises:
            DescriptorError: a point changes what is no param, or in another dimension, or the
                first one does not say what ``params`` say.
        """
        found: dict[str, dict[str, Param]] = {}
        for point, values in self.spec.points.items():
            with self.known.at("points", point):
                if not _NAME.fullmatch(point):
                    raise DescriptorError(
                        f"{point!r} cannot name an operating point; expected letters, digits"
                        " and . _ + -, such as 1.2V"
                    )
            found[point] = {}
            for name, value in values.items():
                with self.known.at("points", point, name):
                    found[point][name] = self._param(name, value, params)
                    if len(found) == 1:
                        _check_default(name, found[point][name], params[name])
        return found

    def _param(
        self, name: str, value: str | int | float | PointValue, params: Mapping[str, Param]
    ) -> Param:
        if name not in params:
            engines = [e for e, spec in self.spec.engines.items() if name in spec.params]
            hint = f", only of engine {engines[0]!r}" if engines else did_you_mean(name, params)
            raise DescriptorError(f"{name!r} is not a param of the platform{hint}")
        given = (
            value
            if isinstance(value, PointValue)
            else PointValue(value=value, source=None, note=None)
        )
        quantity, old = parse_quantity(given.value), params[name]
        if quantity.value < 0 and quantity.dimension != Dimension.none():
            raise DescriptorError(f"{name!r} is {given.value}; a physical quantity is not negative")
        if quantity.dimension != old.quantity.dimension:
            raise UnitError(
                f"{name!r} is in {quantity.dimension}; in params in {old.quantity.dimension}"
            )
        source = old.source if given.source is None else given.source
        note = old.note if quantity.value == old.quantity.value else ""
        return Param(
            quantity,
            self.spec.sources.get(source, source),
            given.note or note,
            old.fit,
            old.bounds,
            old.uncertainty if quantity.value == old.quantity.value else None,
        )


def _check_default(name: str, here: Param, params: Param) -> None:
    if here.quantity.value != params.quantity.value:
        raise DescriptorError(
            f"{name!r} is {here.quantity.text} at the first point and {params.quantity.text} in"
            " params; the first point is the default and says what params say"
        )


def chosen_point(platform: str, points: Iterable[str], point: str | None) -> str:
    """Return the operating point that was asked for, the first by default, ``""`` without any.

    Raises:
        UnknownName: there is none of this name.
    """
    names = list(points)
    if point is None:
        return names[0] if names else ""
    if point not in names:
        known = suggestion(point, names) if names else "; it has none"
        raise UnknownName(f"platform {platform!r} has no operating point {point!r}{known}")
    return point


def calibration(
    spec: PlatformSpec, known: Definitions, metrics: Mapping[str, Metric], points: tuple[str, ...]
) -> Calibration | None:
    """Return what a file says of its measured error.

    Raises:
        DescriptorError: an unknown metric or point, an error that is not a share, a wrong date.
    """
    given = spec.calibration
    if given is None:
        return None
    with known.at("calibration", "date"):
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", given.date, re.ASCII):
            raise DescriptorError(f"date is {given.date!r}; expected a day such as 2026-11-21")
    for index, point in enumerate(given.points):
        with known.at("calibration", "points", index):
            check_point(point, points)
    for index, kind in enumerate(given.kinds):
        with known.at("calibration", "kinds", index):
            engine = kind.partition(ON)[2]
            if engine and engine not in spec.engines:
                raise DescriptorError(f"no engine {engine!r}{suggestion(engine, spec.engines)}")
    return Calibration(
        data=given.data,
        rows=given.rows,
        date=given.date,
        software=given.software or "",
        kinds=tuple(given.kinds),
        bits={"w_bits": tuple(given.w_bits), "a_bits": tuple(given.a_bits)},
        points=tuple(given.points) or points[:1],
        errors=_errors(given.errors, known, metrics, points),
        note=given.note or "",
    )


def check_point(point: str, points: tuple[str, ...]) -> None:
    """Check that a file has an operating point that it names elsewhere.

    Raises:
        DescriptorError: it has not.
    """
    if point not in points:
        hint = suggestion(point, points) if points else "; the file has no points"
        raise DescriptorError(f"no operating point {point!r}{hint}")


def _errors(
    given: Mapping[str, ErrorSpec | list[ErrorSpec]],
    known: Definitions,
    metrics: Mapping[str, Metric],
    points: tuple[str, ...],
) -> dict[str, tuple[MeasuredError, ...]]:
    """Metric -> its errors, that of layers before that of networks."""
    errors = {}
    for metric, one in given.items():
        with known.at("calibration", "errors", metric):
            if metric not in metrics:
                raise DescriptorError(f"no metric {metric!r}{did_you_mean(metric, metrics)}")
            found = [_error(error) for error in (one if isinstance(one, list) else [one])]
            for point in (point for error in found for point in error.points):
                check_point(point, points)
            if len({error.of for error in found}) < len(found):
                raise DescriptorError(f"{metric!r} has two errors of the same kind of rows")
            errors[metric] = tuple(sorted(found, key=lambda error: error.of))
    return errors


def _error(spec: ErrorSpec) -> MeasuredError:
    names = ("median", "p90", "unseen_median", "unseen_p90")
    given = {n: text for n in names if (text := getattr(spec, n)) is not None}
    shares = {name: _share(name, text) for name, text in given.items()}
    for low, high in (("median", "p90"), ("unseen_median", "unseen_p90")):
        if low in shares and high in shares and shares[low] > shares[high]:
            raise DescriptorError(f"{low} {given[low]} is above {high} {given[high]}")
    return MeasuredError(rows=spec.rows, of=spec.of, points=tuple(spec.points), **shares)


def _share(name: str, text: str | int | float) -> float:
    quantity = parse_quantity(text)
    require(quantity.dimension, Dimension.none(), name)
    if quantity.value < 0:
        raise DescriptorError(f"{name} is {text}; expected a share such as 8 %")
    return float(quantity.value)
