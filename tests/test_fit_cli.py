"""``hwcost fit`` on the command line."""

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from hwcost.__main__ import app
from hwcost.loading import load
from tests.fitcases import measured, write_board, write_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fit")
    write_board(folder / "board.yaml")
    write_rows(folder / "rows.csv", measured(24))
    return folder


def run(folder: Path, *words: str) -> Result:
    args = ["fit", str(folder / "board.yaml"), str(folder / "rows.csv"), *words]
    return CliRunner().invoke(app, args)


def test_it_writes_the_fitted_platform(folder: Path) -> None:
    result = run(folder, "-o", str(folder / "new.yaml"), "--date", "2026-11-21")
    assert result.exit_code == 0, result.output
    known = load(folder / "new.yaml").calibration
    assert known is not None and known.date == "2026-11-21"


def test_it_prints_params_errors_and_the_worst_rows(folder: Path) -> None:
    lines = run(folder).output.splitlines()
    starts = [line.split()[0] for line in lines if line and not line.startswith("-")]
    assert starts[:5] == ["board", "param", "rate", "dw_rate", "setup"]
    assert starts[5:8] == ["metric", "latency", "unseen:"]
    assert len([s for s in starts if s.startswith("rows.csv:")]) == 10


def test_it_writes_every_row(folder: Path) -> None:
    run(folder, "--rows", str(folder / "off.csv"))
    with (folder / "off.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    off = float(rows[3]["predicted"]) / float(rows[3]["measured"]) - 1
    assert float(rows[3]["off"]) == pytest.approx(off)


def test_it_prints_json(folder: Path) -> None:
    found = json.loads(run(folder, "--json").output)
    assert [param["name"] for param in found["params"]] == ["rate", "dw_rate", "setup"]
    assert found["errors"][0]["rows"] == 24


def test_rows_of_a_simulator_are_not_measured(folder: Path) -> None:
    run(folder, "-o", str(folder / "sim.yaml"), "--simulated")
    assert load(folder / "sim.yaml").status == "simulated"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-o", "new.yaml", "--date", "today"), "date is 'today'; expected a day such as"),
        (("-o", "nowhere/new.yaml"), "cannot write 'nowhere/new.yaml': there is no such folder"),
        (("--rows", "."), "cannot write '.': it is a folder"),
    ],
)
def test_what_cannot_be_written_is_said_before_the_fit(
    folder: Path, words: tuple[str, ...], message: str
) -> None:
    result = run(folder, *words)
    assert result.exit_code == 1 and result.stdout == ""
    assert result.stderr.startswith(f"error: {message}")


def test_a_wrong_file_is_one_line_on_stderr(folder: Path) -> None:
    (folder / "bad.csv").write_text("kind,cin\nlinear,x\n")
    result = CliRunner().invoke(app, ["fit", str(folder / "board.yaml"), str(folder / "bad.csv")])
    assert result.exit_code == 1
    assert result.stderr == "error: bad.csv:2: 'cin' is 'x'; expected a number\n"
