"""Fit the params of a platform to measured layers and networks.

fitted = fit("my_board.yaml", "layers.csv")
print(fitted)
fitted.write("my_board_fitted.yaml", date="2026-11-21")
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from hwcost.errors import FitError
from hwcost.fit_errors import Errors, errors_by_metric
from hwcost.fit_identify import Estimate, estimate
from hwcost.fit_kinds import kinds_of
from hwcost.fit_model import Predictor, open_params
from hwcost.fit_params import FitParam, with_values
from hwcost.fit_plausible import check_plausible
from hwcost.fit_precision import noise
from hwcost.fit_problem import STARTS, Problem, Ticker, folds_by_net, predicted_unseen
from hwcost.fit_rounding import Fitted, rounded
from hwcost.loading import load, path_of
from hwcost.measurements import Measurements, Reading, read_measurements
from hwcost.platform import Platform
from hwcost.progress import Progress

#: What the rows of a fit are of: silicon or a simulator.
Status = Literal["measured", "simulated"]

#: Digits beyond those that are known, tried one after the other.
_MORE_DIGITS = (0, 2, 4, 8)

#: How often ops are placed on engines anew with the fitted values.
_PLACINGS = 4


@dataclass(frozen=True, eq=False)
class Fit:
    """A platform fitted to measurements.

    Attributes:
        platform: with the new values.
        source: where the file of the platform is; None for one that was not loaded by name.
        predicted: of each reading, SI units, shape ``(readings,)``; so ``measured``.
        kinds: of the ops of each reading, as a calibration names them: ``conv on npu``.
        unseen: predictions by fits without the reading's network, None for a single network.
        errors: by metric, of layers and of networks.
    """

    platform: Platform
    source: Path | None
    measurements: Measurements
    params: tuple[Fitted, ...]
    measured: Tensor
    predicted: Tensor
    kinds: tuple[tuple[str, ...], ...]
    unseen: Tensor | None
    errors: tuple[Errors, ...]

    def write(self, path: str | Path, date: str, status: Status = "measured") -> Platform:
        """Write the platform's file with the new values and return what it holds.

        Comments and order stay.

        Args:
            date: of the fit, such as ``2026-11-21``.
            status: ``simulated`` where the rows are not of silicon.

        Raises:
            FitError: the platform was not loaded by name or path, or the file cannot be written.
        """
        from hwcost.fit_write import write

        return write(self, Path(path), date, status)

    def __str__(self) -> str:
        from hwcost.fit_report import text

        return text(self)


def fit(
    platform: str | Path | Platform, path: str | Path, *, progress: Progress | None = None
) -> Fit:
    """Return the platform whose params fit measured rows best.

    Params with ``fit: true`` change within their bounds. What is made small is a robust loss of
    the logarithms of predicted over measured, so a row that is off by a factor counts little more
    than one off by half of it. The same file gives the same bits, with any number of threads.

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
    with _one_thread():
        predictor, fitted = _fitted(loaded, measurements, params, tick)
        measured, predicted = predictor.measured, predictor.own()
        check_plausible(readings, measured, predicted)
        unseen = predicted_unseen(predictor, folds, tick)
    errors = errors_by_metric(readings, measured, predicted, unseen)
    return Fit(
        platform=predictor.platform,
        source=source,
        measurements=measurements,
        params=fitted,
        measured=measured,
        predicted=predicted,
        kinds=kinds_of(predictor),
        unseen=unseen,
        errors=errors,
    )


def _fitted(
    loaded: Platform, measurements: Measurements, params: tuple[FitParam, ...], tick: Ticker
) -> tuple[Predictor, tuple[Fitted, ...]]:
    """What the fitted platform predicts, and its params; ops are placed by the fitted values."""
    predictor = Predictor(loaded, measurements.readings, params)
    for _ in range(_PLACINGS):
        problem = Problem(predictor)
        _check_enough(problem, measurements.name)
        found = estimate(problem, params, problem.own, problem.starts(tick), *problem.bounds)
        fitted = _rounded(problem, found)
        now = with_values(loaded, {f.param.loc: f.text for f in fitted if f.text})
        before, predictor = predictor, Predictor(now, measurements.readings, params)
        if predictor.placement == before.placement:
            break
    return predictor, fitted


def _rounded(problem: Problem, found: Estimate) -> tuple[Fitted, ...]:
    """The params with no more digits than known, unless the rows need them: near a step."""
    best = found.solution
    allowed = len(problem.params) * noise(best, len(problem.params)) ** 2 / 2
    for more in _MORE_DIGITS:
        fitted = rounded(problem.params, found, more)
        at = problem.inner([f.value for f in fitted])
        if best.loss.total(problem(at)[0]) - best.total <= allowed:
            break
    return fitted


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread: sums over rows come out the same to the bit on any number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def params_of(platform: Platform, readings: Sequence[Reading]) -> tuple[FitParam, ...]:
    """Return the params that may change, at every operating point of the readings.

    Raises:
        FitError: the platform has none, or not such a point.
    """
    found = open_params(platform, readings)
    if not found:
        raise FitError(f"{platform.name!r} has no param with 'fit: true' and bounds")
    return found


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
