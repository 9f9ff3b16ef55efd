"""Fit the params of a platform to measured layers and networks.

fitted = fit("my_board.yaml", "layers.csv")
print(fitted)
fitted.write("my_board_fitted.yaml", date="2026-11-21")
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from hwcost.errors import FitError
from hwcost.fit_errors import Errors, errors_by_metric
from hwcost.fit_identify import estimate
from hwcost.fit_model import Predictor, at_points, predictions
from hwcost.fit_params import FitParam, fit_params, with_values
from hwcost.fit_problem import STARTS, Problem, Progress, Ticker, folds_by_net, predicted_unseen
from hwcost.fit_rounding import Fitted, rounded
from hwcost.loading import load, path_of
from hwcost.measurements import Measurements, Reading, read_measurements
from hwcost.platform import Platform

#: Rows of one metric that are further apart than this, of what is predicted, have different units:
#: a prefix is a factor of 1000.
_APART = 300.0

#: How often ops are placed on engines anew with the fitted values.
_PLACINGS = 4


@dataclass(frozen=True, eq=False)
class Fit:
    """A platform fitted to measurements.

    Attributes:
        platform: with the new values.
        source: where the file of the platform is; None for one that was not loaded by name.
        predicted: of each reading, SI units, shape ``(readings,)``; so ``measured``.
        unseen: predictions by fits without the reading's network, None for a single network.
        errors: by metric, of layers and of networks.
    """

    platform: Platform
    source: Path | None
    measurements: Measurements
    params: tuple[Fitted, ...]
    measured: Tensor
    predicted: Tensor
    unseen: Tensor | None
    errors: tuple[Errors, ...]

    def write(self, path: str | Path, date: str) -> Platform:
        """Write the platform's file with the new values and return what it holds.

        Comments and order stay.

        Args:
            date: of the fit, such as ``2026-11-21``.

        Raises:
            FitError: the platform was not loaded by name or path, or the file cannot be written.
        """
        from hwcost.fit_write import write

        return write(self, Path(path), date)

    def __str__(self) -> str:
        from hwcost.fit_report import text

        return text(self)


def fit(
    platform: str | Path | Platform, path: str | Path, *, progress: Progress | None = None
) -> Fit:
    """Return the platform whose params fit measured rows best.

    Params with ``fit: true`` change within their bounds. What is made small is a robust loss of
    the logarithms of predicted over measured, so a row that is off by a factor counts little more
    than one off by half of it. The same file gives the same bits.

    Raises:
        FitError: a row of the file is wrong, or there are too few.
        UnknownName, DescriptorError: no such platform, or its file is wrong.
    """
    loaded = load(platform)
    source = None if isinstance(platform, Platform) else path_of(platform)
    measurements = read_measurements(path, loaded)
    readings = measurements.readings
    params = params_of(loaded, readings)
    folds = folds_by_net(readings)
    tick = Ticker(progress, STARTS + 2 + len(folds))
    now = loaded
    for _ in range(_PLACINGS):
        predictor = Predictor(now, readings, params)
        problem = Problem(predictor)
        _check_enough(problem, measurements.name)
        found = estimate(problem, params, problem.own, problem.starts(tick), *problem.bounds)
        fitted = rounded(params, found)
        now = with_values(loaded, {f.param.loc: f.text for f in fitted if f.text})
        if Predictor(now, readings, params).placement == predictor.placement:
            break
    predicted = predictions(now, readings)
    _check_units(readings, (predictor.measured / predicted).tolist())
    unseen = predicted_unseen(predictor, folds, tick)
    errors = errors_by_metric(readings, predictor.measured, predicted, unseen)
    return Fit(now, source, measurements, fitted, predictor.measured, predicted, unseen, errors)


def params_of(platform: Platform, readings: Sequence[Reading]) -> tuple[FitParam, ...]:
    """Return the params that may change, at every operating point of the readings.

    Raises:
        FitError: the platform has none, or not such a point.
    """
    found = {p.loc: p for here in at_points(platform, readings).values() for p in fit_params(here)}
    if not found:
        raise FitError(f"{platform.name!r} has no param with 'fit: true' and bounds")
    return tuple(found.values())


def _check_enough(problem: Problem, name: str) -> None:
    read = problem.read()
    if not read:
        raise FitError(f"{name}: no param with 'fit: true' makes a difference to its rows")
    rows = len(problem.predictor.readings)
    if rows <= len(read):
        names = ", ".join(param.name for param in read)
        raise FitError(
            f"{name}: {rows} measured values are too few for {len(read)} params ({names});"
            f" at least {len(read) + 1} are needed"
        )


def _check_units(readings: Sequence[Reading], ratios: Sequence[float]) -> None:
    """Check that measured over predicted does not differ by the factor of a prefix."""
    for metric in dict.fromkeys(reading.metric for reading in readings):
        mine = [(q, r.at) for q, r in zip(ratios, readings, strict=True) if r.metric == metric]
        (low, at_low), (high, at_high) = min(mine), max(mine)
        if high > _APART * low:
            raise FitError(
                f"{at_high}: {metric!r} is {high:.3g} times what the best fit predicts, and"
                f" {low:.3g} times at {at_low}; are both in the unit of the header?"
            )
