"""Measured errors: what a file says of them, and where reports show them."""

import json
from pathlib import Path

import pandas as pd
import pytest

from hwcost.calibration import MeasuredError
from hwcost.errors import DescriptorError
from hwcost.loading import load, loads
from hwcost.platform import Platform
from hwcost.reports import compare, report, table
from hwcost.reports_compare import Comparison
from hwcost.reports_format import plain
from hwcost.reports_layers import Report
from hwcost.workload import Workload
from tests.chipcases import HEAD, changed

CHIP = (
    HEAD
    + """\
params: {clock: {value: 200 MHz, source: bench}, power: {value: 100 mW, source: bench}}
engines:
  core:
    ops:
      - {match: conv, cycles: macs}
      - {match: linear, cycles: macs}
      - {match: softmax, cycles: elements}
      - {match: activation, free: fused}
metrics:
  latency: {unit: s, row: cycles/clock}
  energy: {unit: J, row: power*busy}
  weight_bytes: {unit: B, row: w_bytes}
points:
  fast: {clock: 200 MHz}
  slow: {clock: 100 MHz}
  slowest: {clock: 50 MHz}
calibration:
  data: layers.csv, somebody/bench@1234abc
  rows: 49
  date: 2026-11-21
  software: kernels 1.2
  kinds: [conv]
  w_bits: [8]
  a_bits: [8]
  points: [fast, slow]
  errors:
    latency: {median: 8 %, p90: 14 %, rows: 45}
deploy: {w_bits: 8, a_bits: 8}
"""
)
LAYERS = "latency: {median: 8 %, p90: 14 %, rows: 45}"
BOTH = "latency: [{p90: 5 %, rows: 4, of: nets}, {p90: 14 %, rows: 45, of: layers}]"


def chip(*changes: tuple[str, str]) -> Platform:
    return loads(changed(CHIP, *changes), "chip.yaml")


def ops(conv: int = 100, linear: int = 0, softmax: int = 0, **bits: float) -> Workload:
    """One op of each kind with so many MACs or elements; 0 for none."""
    one = {"kh": 1, "kw": 1, "oh": 1, "ow": 1, "cin": 1, "positions": 1}
    counts = {"conv": conv, "linear": linear, "softmax": softmax}
    rows = [
        {"layer": kind, "kind": kind, **one, "cout": count, "elements": count}
        for kind, count in counts.items()
        if count
    ]
    frame = pd.DataFrame(rows)
    workload = Workload.from_frame(frame)
    return workload.with_precision(**bits) if bits else workload


def results(made: Report) -> dict[str, str]:
    return dict(made.sheet().results)


def facts(made: Report) -> dict[str, str]:
    return dict(made.sheet().facts)


def test_errors_are_shares() -> None:
    assert chip().error("latency") == MeasuredError(p90=0.14, rows=45, of="layers", median=0.08)


def test_a_metric_that_was_not_measured_has_no_error() -> None:
    assert chip().error("energy") is None


def test_a_platform_without_calibration_has_no_error() -> None:
    assert load("mpic").calibration is None
    assert load("mpic").error("latency") is None


def test_networks_have_an_error_of_their_own_where_they_were_measured() -> None:
    both = chip((LAYERS, BOTH))
    found = [error.rows for of in ("nets", "layers") if (error := both.error("latency", of))]
    assert found == [4, 45]


def test_networks_alone_say_nothing_of_layers() -> None:
    nets = chip((LAYERS, "latency: {p90: 5 %, rows: 4, of: nets}"))
    assert nets.error("latency", "layers") is None


@pytest.mark.parametrize(("point", "known"), [("fast", True), ("slow", True), ("slowest", False)])
def test_an_error_holds_at_the_points_that_were_measured(point: str, known: bool) -> None:
    assert (chip().at(point).error("latency") is not None) is known


def test_the_default_point_was_measured_unless_said_otherwise() -> None:
    platform = chip(("  points: [fast, slow]\n", ""))
    assert platform.calibration is not None
    assert platform.calibration.points == ("fast",)


def test_changed_numbers_have_no_measured_error() -> None:
    assert chip().with_params(power="90 mW").error("latency") is None


def test_a_file_that_extends_another_does_not_inherit_its_error(tmp_path: Path) -> None:
    folder = tmp_path
    (folder / "chip.yaml").write_text(CHIP)
    own = "calibration: {data: x, rows: 2, date: 2026-01-02, errors: {energy: {p90: 1 %, rows: 2}}}"
    head = "hwcost: 1\nextends: chip.yaml\nname: two\n"
    (folder / "two.yaml").write_text(head)
    (folder / "three.yaml").write_text(head + own)
    assert load(folder / "two.yaml").calibration is None
    three = load(folder / "three.yaml")
    assert three.error("latency") is None
    assert three.calibration is not None
    assert three.calibration.software == ""


UNSEEN = f"{LAYERS[:-1]}, unseen_median: 9 %, unseen_p90: 21 %}}"


def test_the_error_on_networks_left_out_is_the_one_to_expect() -> None:
    made = report(ops(), chip((LAYERS, UNSEEN)))
    assert results(made)["latency"] == "500 ns, ±21 % (p90, 45 rows)"
    assert made.columns()["latency_error_p90"] == [0.21]


def test_a_report_tells_both_errors() -> None:
    assert facts(report(ops(), chip((LAYERS, UNSEEN))))["error"] == (
        "latency: median 8 %, p90 14 % (45 layers),"
        " on networks left out of the fit median 9 %, p90 21 %"
    )


MISTAKES = [
    ("latency: {median", "latncy: {median", "no metric 'latncy'; did you mean 'latency'"),
    ("p90: 14 %", "p90: 14 ms", "'p90' is in s; expected a plain number"),
    ("p90: 14 %", "p90: -14 %", "expected a share such as 8 %"),
    ("median: 8 %", "median: 80 %", "median 80 % is above p90 14 %"),
    ("p90: 14 %, ", "", "key 'p90' is missing in 'calibration.errors.latency'"),
    ("rows: 45}", "rows: 0}", "'calibration.errors.latency.rows' is 0"),
    ("rows: 45}", "rows: 45, off: nets}", "unknown key 'off'; did you mean 'of'"),
    (LAYERS, f"latency: [{LAYERS[9:]}, {LAYERS[9:]}]", "two errors of the same kind of rows"),
    ("2026-11-21", "last week", "date is 'last week'; expected a day such as 2026-11-21"),
    (
        "kinds: [conv]",
        "kinds: [convs]",
        "'convs'; no kind of op has this name; did you mean 'conv'",
    ),
    ("points: [fast, slow]", "points: [fasst]", "no operating point 'fasst'; did you mean 'fast'"),
    ("software: kernels", "softwar: kernels", "unknown key 'softwar'; did you mean 'software'"),
]


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES)
def test_a_mistake_is_one_line(old: str, new: str, message: str) -> None:
    with pytest.raises(DescriptorError) as caught:
        chip((old, new))
    assert message in str(caught.value)
    assert str(caught.value).startswith("chip.yaml:")


def test_a_total_stands_beside_its_error() -> None:
    assert results(report(ops(), chip()))["latency"] == "500 ns, ±14 % (p90, 45 rows)"


def test_the_error_of_networks_is_that_of_a_total() -> None:
    assert results(report(ops(), chip((LAYERS, BOTH))))["latency"].endswith("±5 % (p90, 4 nets)")


def test_other_metrics_have_no_error() -> None:
    found = results(report(ops(), chip()))
    assert "±" not in found["energy"] + found["weight_bytes"]


def test_a_report_says_what_was_measured() -> None:
    found = facts(report(ops(), chip()))
    assert found["calibrated"] == "49 rows of layers.csv, somebody/bench@1234abc; 2026-11-21"
    assert found["software"] == "kernels 1.2"
    assert found["error"] == "latency: median 8 %, p90 14 % (45 layers)"


def test_a_report_says_where_the_error_is_not_known() -> None:
    made = report(ops(), chip().at("slowest"))
    assert facts(made)["error"] == "not known at slowest; measured at fast and slow"
    assert results(made)["latency"] == "2 us"


def test_a_lower_bound_has_no_error() -> None:
    made = compare({"net": ops(100, linear=10)}, chip(("- {match: linear, cycles: macs}", "")))
    assert made.entries[0].error("latency") is None
    assert ">= 500 ns" in str(made)


def notes(made: Report | Comparison) -> str:
    return "\n".join(made.sheet().notes)


def test_a_metric_measured_at_one_of_several_points_has_no_error_at_the_others() -> None:
    some = chip((LAYERS, LAYERS[:-1] + ", points: [fast]}"))
    assert "(45 layers at fast)" in facts(report(ops(), some))["error"]
    assert results(report(ops(), some.at("slow")))["latency"] == "1 us"


def test_kinds_that_were_not_measured_are_named() -> None:
    made = report(ops(90, linear=10), chip())
    assert "outside the calibration: 1 linear (10 % of latency)" in notes(made)
    assert "±" in results(made)["latency"]


def test_depthwise_convolutions_are_a_kind_of_their_own() -> None:
    depthwise = Workload.from_columns(
        "conv", cin=8, cout=8, groups=8, kh=3, kw=3, ih=3, iw=3, oh=1, ow=1
    )
    assert "1 depthwise (100 % of latency)" in notes(report(depthwise, chip()))
    measured = chip(("kinds: [conv]", "kinds: [conv, depthwise]"))
    assert results(report(depthwise, measured))["latency"].endswith("±14 % (p90, 45 rows)")


def test_a_kind_counts_as_measured_on_the_engine_that_ran_it() -> None:
    kinds = ("kinds: [conv]", "kinds: [conv on core]")
    assert "±" in results(report(ops(), chip(kinds)))["latency"]
    npu = ("engines:\n", "engines:\n  npu: {ops: [{match: conv, cycles: macs/2}]}\n")
    assert "1 conv on npu (100 % of latency)" in notes(report(ops(), chip(kinds, npu)))


def test_a_kernel_counts_as_measured_by_itself() -> None:
    other = chip(("kinds: [conv]", "kinds: [conv 3x3]"))
    assert "1 conv 1x1 (100 % of latency)" in notes(report(ops(), other))
    same = chip(("kinds: [conv]", "kinds: [conv 3x3, conv 1x1 on core]"))
    assert "±" in results(report(ops(), same))["latency"]


@pytest.mark.parametrize("kind", ["linear 3x3", "conv 3", "conv 0x3", "conv 3x3x3x3", "conv x"])
def test_a_kernel_is_that_of_a_convolution(kind: str) -> None:
    with pytest.raises(DescriptorError, match=f"'{kind}' is no kind of op"):
        chip(("kinds: [conv]", f"kinds: [{kind}]"))


def test_an_engine_of_measured_kinds_has_to_be_there() -> None:
    with pytest.raises(DescriptorError, match=r"no engine 'cor'; did you mean 'core'\?"):
        chip(("kinds: [conv]", "kinds: [conv on cor]"))


def test_bits_that_were_not_measured_are_named() -> None:
    made = report(ops(w_bits=4, a_bits=8), chip())
    assert "outside the calibration: 1 op at w4a8 (100 % of latency)" in notes(made)


def test_a_total_that_is_mostly_unlike_what_was_measured_has_no_error() -> None:
    assert results(report(ops(70, linear=30), chip()))["latency"] == "500 ns"


def test_what_costs_next_to_nothing_is_not_named() -> None:
    assert "outside" not in notes(report(ops(1000, linear=5), chip()))


def test_a_file_that_does_not_say_what_was_measured_names_nothing() -> None:
    silent = chip(("  kinds: [conv]\n  w_bits: [8]\n  a_bits: [8]\n", ""))
    assert "outside" not in notes(report(ops(50, linear=50, w_bits=4), silent))


@pytest.fixture(scope="module")
def compared() -> Comparison:
    models = {"net": ops(), "other": ops(90, linear=10)}
    return compare(models, [chip(), "mpic", chip().at("slowest")], ["latency", "energy"])


def test_a_comparison_has_a_column_of_errors(compared: Comparison) -> None:
    column = next(c for c in compared.sheet().columns if c.title == "latency error")
    assert column.cells == ["±14 % (p90, 45 rows)", "", "", "±14 % (p90, 45 rows)", "", ""]


def test_a_metric_without_errors_has_no_such_column(compared: Comparison) -> None:
    assert "energy error" not in [c.title for c in compared.sheet().columns]


def test_a_comparison_shows_the_status_of_each_platform(compared: Comparison) -> None:
    status = next(c for c in compared.sheet().columns if c.title == "status")
    assert status.cells[:3] == ["measured", "published", "measured"]


def test_a_narrow_terminal_keeps_errors_and_status(compared: Comparison) -> None:
    text = plain(compared.sheet(), 60)
    assert max(map(len, text.splitlines())) <= 60
    assert text.splitlines()[2].split()[:6] == ["net", "chip", "500", "ns", "±14", "%"]
    assert "measured" in text.splitlines()[2]


def test_a_wide_terminal_tells_how_many_rows(compared: Comparison) -> None:
    assert "±14 % (p90, 45 rows)" in plain(compared.sheet(), 160)


def test_a_comparison_says_what_was_not_measured(compared: Comparison) -> None:
    found = compared.columns()["note"]
    assert found[2] == "error not known at slowest; measured at fast and slow"
    assert found[3] == "outside the calibration: 1 linear (10 % of latency)"


def test_the_sign_is_explained_where_it_stands(compared: Comparison) -> None:
    assert "±: nine of ten measured rows" in notes(compared)
    assert "±" not in notes(compare({"net": ops()}, ["mpic", "gap8_compute"]))


def test_errors_are_columns_of_their_own_in_data(compared: Comparison) -> None:
    frame = compared.to_frame()
    assert frame["latency_error_p90"].tolist()[0] == 0.14
    assert frame["latency_error_p90"].isna().tolist() == [False, True, True] * 2
    assert frame["latency_error_of"].tolist()[0] == "45 layers"
    assert "energy_error_p90" not in frame


def test_a_report_as_json_has_the_error() -> None:
    found = json.loads(report(ops(), chip((LAYERS, BOTH))).to_json())
    assert found["errors"]["latency_s"]["p90"] == 0.05
    assert found["errors"]["latency_s"]["of"] == "nets"
    assert found["errors"]["energy_j"] is None
    assert found["rows"][0]["latency_error_p90"] == 0.14


def test_a_table_has_the_error_of_layers() -> None:
    frame = table({"net": ops()}, [chip((LAYERS, BOTH)), "mpic"], "latency").to_frame()
    assert frame["latency_error_p90"].tolist()[0] == 0.14
    assert frame["latency_error_p90"].isna().tolist() == [False, True]
    assert frame["latency_error_of"].tolist() == ["45 layers", ""]


def test_a_table_as_text_tells_error_and_status_below() -> None:
    text = table({"net": ops()}, [chip(), "mpic"], "latency").to_text(60)
    assert "latency on chip: ±14 % (p90, 45 rows) of a layer" in text
    assert "status: chip measured, mpic published" in text


def test_latex_has_the_sign() -> None:
    assert r"$\pm$14 \%" in compare({"net": ops()}, chip(), "latency").to_latex()
