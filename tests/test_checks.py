"""Golden points: ops and networks with known costs, and what ``hwcost check`` says of them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from hwcost.__main__ import app
from hwcost.checks import results
from hwcost.cli_check import checked
from hwcost.costmodel import CostModel
from hwcost.errors import DescriptorError
from hwcost.loading import available, load, loads
from hwcost.tracing import trace
from hwcost.zoo import autoencoder
from tests.chipcases import HEAD, changed

CHIP = (
    HEAD
    + """\
params: {clock: {value: 100 MHz, source: bench}}
engines:
  core:
    ops:
      - {match: conv, cycles: macs}
      - {match: linear, cycles: 2*macs}
    default: {cycles: 0}
  other: {ops: [{match: linear, cycles: 5*macs}]}
metrics: {latency: {unit: ms, row: cycles/clock}}
points:
  fast: {clock: 100 MHz}
  slow: {clock: 50 MHz}
checks:
"""
)
#: 1000 MACs: 10 us at 100 MHz.
CONV = "op: {conv: {cin: 10, cout: 10, kh: 1, kw: 1, oh: 10, ow: 1}}"
LINEAR = "op: {linear: {cin: 100, cout: 10}}"
#: 264,192 MACs in linear layers: 5.28384 ms.
NET = "zoo: autoencoder"
REST = "metric: latency, tol: 1 %, source: bench"


def text(*checks: str) -> str:
    return CHIP + "".join(f"  - {{{check}, {REST}}}\n" for check in checks)


def chip_file(folder: Path, *checks: str) -> str:
    (folder / "chip.yaml").write_text(text(*checks))
    return str(folder / "chip.yaml")


def hw(*args: str) -> Result:
    return CliRunner().invoke(app, ["check", *args])


def test_an_op_is_priced_at_its_sizes() -> None:
    [found] = results(loads(text(f"{CONV}, value: 10 us")))
    assert (found.measured, found.predicted) == pytest.approx((1e-5, 1e-5))


def test_a_network_of_the_zoo_is_priced_whole() -> None:
    platform = loads(text(f"{NET}, value: 5 ms"))
    [found] = results(platform)
    total = CostModel(platform, "latency").total(trace(*autoencoder()))
    assert found.predicted == pytest.approx(5.28384e-3) == pytest.approx(float(total) / 1000)


def test_a_check_runs_at_its_operating_point() -> None:
    [found] = results(loads(text(f"{CONV}, value: 20 us, point: slow")))
    assert found.predicted == pytest.approx(2e-5)
    assert found.platform.name == "chip@slow"


def test_a_check_without_a_point_runs_at_the_default_one() -> None:
    [found] = results(loads(text(f"{CONV}, value: 10 us")).at("slow"))
    assert found.predicted == pytest.approx(1e-5)


def test_a_check_runs_on_its_engine() -> None:
    [found] = results(loads(text(f"{LINEAR}, value: 50 us, engine: other")))
    assert found.predicted == pytest.approx(5e-5)


@pytest.mark.parametrize(
    ("value", "error", "ok"),
    [
        ("10 us", 0, True),
        ("9.91 us", 0.0091, True),
        ("9.8 us", 0.0204, False),
        ("20 us", -0.5, False),
    ],
)
def test_the_error_is_that_of_the_prediction(value: str, error: float, ok: bool) -> None:
    [found] = results(loads(text(f"{CONV}, value: {value}")))
    assert found.error == pytest.approx(error, abs=1e-3)
    assert found.ok is ok


def test_a_known_cost_of_zero_is_met_by_zero_alone() -> None:
    found = results(loads(text("op: {pool: {cin: 1}}, value: 0 s", f"{CONV}, value: 0 s")))
    assert [one.ok for one in found] == [True, False]


def test_an_op_without_a_price_is_missed_and_says_why(tmp_path: Path) -> None:
    result = hw(chip_file(tmp_path, "op: {conv: {cin: 10}}, value: 0 s"))
    assert result.exit_code == 1
    assert "chip.yaml:19: cannot be computed: " in result.stdout


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ("value: 1 ms", "a check has either 'op' or 'zoo'"),
        (f"{CONV}, {NET}, value: 1 ms", "a check has either 'op' or 'zoo'"),
        ("zoo: resnet9, value: 1 ms", "no network 'resnet9' in the zoo; did you mean 'resnet8'"),
        (f"{CONV}, value: 1 ms, point: slov", "no operating point 'slov'; did you mean 'slow'"),
        ("op: {conv: {cin: -1}}, value: 1 ms", "cin is -1; expected 0 or more"),
        (f"{CONV}, value: 1 mJ", "'value' is in J; expected s"),
        (f"{CONV}, value: -1 ms", "value is -1 ms; expected 0 or more"),
    ],
)
def test_a_wrong_check_is_an_error_at_load(check: str, message: str) -> None:
    with pytest.raises(DescriptorError) as caught:
        loads(text(check), "chip.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("chip.yaml:19: ")


@pytest.mark.parametrize("tol", ["-1 %", "15"])
def test_a_tolerance_is_a_share(tol: str) -> None:
    with pytest.raises(DescriptorError, match=f"tol is {tol}; expected 0 % to 100 %"):
        loads(text(f"{CONV}, value: 1 ms").replace("tol: 1 %", f"tol: {tol}"))


def test_a_point_of_a_file_without_points_is_unknown() -> None:
    points = "points:\n  fast: {clock: 100 MHz}\n  slow: {clock: 50 MHz}\n"
    without = changed(text(f"{CONV}, value: 1 ms, point: slow"), (points, ""))
    with pytest.raises(DescriptorError, match="no operating point 'slow'; the file has no points"):
        loads(without)


def test_each_golden_point_has_measured_predicted_error_and_tolerance(tmp_path: Path) -> None:
    lines = hw(chip_file(tmp_path, f"{CONV}, value: 9.95 us")).stdout.splitlines()
    titles = "line golden point at metric measured predicted error tolerance source"
    assert lines[-3].split() == titles.split()
    assert lines[-1].endswith("fast  latency   9.95 us      10 us  +0.5 %        1 %  bench")


def test_what_lies_outside_the_tolerance_is_marked_and_fails(tmp_path: Path) -> None:
    result = hw(chip_file(tmp_path, f"{CONV}, value: 10 us", f"{CONV}, value: 20 us"))
    assert result.exit_code == 1
    assert "1 of 2 golden points missed" in result.stdout
    assert [line.endswith("OUTSIDE  bench") for line in result.stdout.splitlines()[-2:]] == [
        False,
        True,
    ]


def test_a_narrow_terminal_keeps_the_numbers(tmp_path: Path) -> None:
    lines = checked(chip_file(tmp_path, f"{CONV}, value: 20 us"), 60).lines
    assert max(map(len, lines)) <= 60
    assert any(line.endswith("20 us      10 us  -50 %  1 %  OUTSIDE") for line in lines)


def test_a_point_behind_the_name_selects_its_checks(tmp_path: Path) -> None:
    file = chip_file(tmp_path, f"{CONV}, value: 1 s", f"{CONV}, value: 20 us, point: slow")
    assert hw(file).exit_code == 1
    assert hw(f"{file}@slow").exit_code == 0
    assert hw(f"{file}@fast").exit_code == 1


def test_several_platforms_end_with_a_sum(tmp_path: Path) -> None:
    file = chip_file(tmp_path, f"{CONV}, value: 10 us", f"{NET}, value: 1 ms")
    result = hw(file, "mpic", "nowhere.yaml")
    assert result.exit_code == 1
    last = result.stdout.splitlines()[-1]
    assert last == "3 platforms, 2 golden points, 1 missed, 1 with an error"


def test_json_has_the_numbers(tmp_path: Path) -> None:
    [found] = json.loads(hw(chip_file(tmp_path, f"{NET}, value: 5 ms"), "--json").stdout)
    [check] = found["checks"]
    assert (check["golden_point"], check["point"], check["ok"]) == ("autoencoder", "fast", False)
    assert check["predicted"] / check["measured"] - 1 == pytest.approx(check["error"])


@pytest.mark.slow
def test_without_a_name_all_shipped_platforms_are_checked() -> None:
    result = hw()
    assert result.exit_code == 0
    for name in available():
        assert f"{name}: OK, platform {name!r} ({load(name).status})" in result.stdout
