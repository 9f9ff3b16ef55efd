"""Parts of a fit: predictions and slopes, the solver, folds, errors, and numbers as text."""

from pathlib import Path

import pytest
import torch

from hwcost.fit_errors import p90, spearman
from hwcost.fit_model import Predictor
from hwcost.fit_params import fit_params
from hwcost.fit_problem import Problem, folds_by_net
from hwcost.fit_rounding import digits_for, plain
from hwcost.fit_solver import solve
from hwcost.loading import loads
from hwcost.measurements import read_measurements
from hwcost.percent import rough_percent
from hwcost.platform import Platform
from tests.fitcases import BOARD, TWO, measured, true_board, two_rows, write_rows


def predictor(platform: Platform, path: Path) -> Predictor:
    return Predictor(platform, read_measurements(path, platform).readings, fit_params(platform))


def test_predictions_are_those_of_the_cost_model(tmp_path: Path) -> None:
    board = true_board()
    found = predictor(board, write_rows(tmp_path / "rows.csv", measured(9, noise=0)))
    values = torch.tensor([p.start for p in found.params], dtype=torch.float64)
    torch.testing.assert_close(found(values), found.measured, rtol=1e-12, atol=0)


@pytest.mark.parametrize("text", [BOARD, TWO], ids=["row", "op"])
def test_slopes_are_those_of_differences(tmp_path: Path, text: str) -> None:
    board = loads(text)
    rows = measured(9) if text == BOARD else two_rows()
    found = predictor(board, write_rows(tmp_path / "rows.csv", rows))
    at = torch.tensor([p.start for p in found.params], dtype=torch.float64)
    steps = torch.diag(at * 1e-6)
    differences = torch.stack([(found(at + s) - found(at - s)) / (2 * s.sum()) for s in steps], 1)
    torch.testing.assert_close(found.with_slopes(at)[1], differences, rtol=1e-5, atol=1e-15)


def test_the_solver_reaches_what_scipy_reaches(tmp_path: Path) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    board = loads(BOARD)
    problem = Problem(predictor(board, write_rows(tmp_path / "rows.csv", measured(outliers=10))))
    low, high = problem.bounds
    ours = solve(problem, [problem.own], low, high, torch.ones(3, dtype=torch.bool))
    theirs = optimize.least_squares(
        lambda at: problem(torch.tensor(at))[0].numpy(),
        problem.own.numpy(),
        bounds=(low.numpy(), high.numpy()),
        loss="cauchy",
        f_scale=ours.loss.scale,
        xtol=1e-12,
        ftol=1e-12,
        gtol=1e-12,
    )
    assert ours.at.tolist() == pytest.approx(theirs.x.tolist(), rel=1e-4)


def test_folds_leave_out_whole_networks(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.csv", measured(48, nets=16))
    readings = read_measurements(path, loads(BOARD)).readings
    folds = folds_by_net(readings)
    assert len(folds) == 10 and torch.stack(folds).sum(0).tolist() == [1] * 48
    for net in {r.net for r in readings}:
        mine = torch.tensor([r.net == net for r in readings])
        assert sum(bool((fold & mine).any()) for fold in folds) == 1


def test_p90_of_few_rows_is_the_largest() -> None:
    """Of nine rows, only the largest has nine tenths within; of eleven, the last but one."""
    few, more = (torch.arange(1.0, n) for n in (10, 12))
    assert p90(few) == 9
    assert p90(more) == pytest.approx(10)


def test_spearman_is_that_of_a_textbook() -> None:
    """Ranks 1 2 3 4 5 and 2 1 4 3 5: 1 - 6*(1+1+1+1)/(5*24) = 0.8."""
    found = spearman(torch.tensor([1.0, 2, 3, 4, 5]), torch.tensor([20.0, 10, 40, 30, 50]))
    assert found == pytest.approx(0.8)


def test_equal_values_share_their_rank() -> None:
    """Ranks 1.5 1.5 3 and 1 2 3: deviations -.5 -.5 1 and -1 0 1; 1.5/sqrt(1.5*2)."""
    found = spearman(torch.tensor([7.0, 7, 9]), torch.tensor([1.0, 2, 3]))
    assert found == pytest.approx(1.5 / 3**0.5)


@pytest.mark.parametrize(
    ("error", "digits"), [(0.3, 2), (0.04, 3), (0.01, 3), (0.002, 4), (1e-9, 6), (3, 2)]
)
def test_digits_follow_from_the_error(error: float, digits: int) -> None:
    assert digits_for(error) == digits


@pytest.mark.parametrize(
    ("number", "digits", "text"),
    [(1.23456, 3, "1.23"), (123456, 2, "120000"), (0.00012345, 2, "0.00012"), (2, 3, "2")],
)
def test_numbers_are_plain(number: float, digits: int, text: str) -> None:
    assert plain(number, digits) == text


@pytest.mark.parametrize(("share", "text"), [(0.08, "8 %"), (0.1234, "12 %"), (2.5, "250 %")])
def test_shares_have_two_digits(share: float, text: str) -> None:
    assert rough_percent(share) == text
