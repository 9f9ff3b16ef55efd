"""Reports: totals, coverage, lower bounds, formats, and text at every width."""

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

from hwcost.costmodel import CostModel
from hwcost.errors import (
    HwcostWarning,
    MissingLibrary,
    TraceError,
    UnknownName,
    UnsupportedOp,
    WorkloadError,
)
from hwcost.explain_sizes import sizes_text
from hwcost.loading import available, load, loads
from hwcost.percent import percent
from hwcost.platform import Platform
from hwcost.reports import compare, report, table
from hwcost.reports_compare import Comparison
from hwcost.reports_format import Column, Sheet, fit, markdown, plain, shorten, tex
from hwcost.reports_layers import Report
from hwcost.tracing import trace
from hwcost.workload import Workload

CHIP = """
hwcost: 1
name: chip
title: a chip | of <two> engines & 100 % _tests_
status: measured
sources: {bench: "a bench, 2024"}
params: {clock: {value: 100 MHz, source: bench}}
memories:
  l1: {size: 1 KiB, holds: [activations]}
  flash: {size: 64 B, holds: [weights]}
engines:
  fast:
    precision: {w_bits: [2], a_bits: [8]}
    ops:
    - {match: conv, cycles: cout}
    - {match: matmul, unsupported: "no weights"}
  slow:
    precision: {w_bits: [8], a_bits: [8]}
    ops:
    - {match: [conv, linear], cycles: 2*cout}
    - {match: norm, free: folded}
metrics:
  latency: {unit: ms, row: cycles/clock, engines: max}
  weight_bytes: {unit: B, row: w_once*w_bytes}
  peak_ram: {unit: B, reduce: peak_live}
limits: {small: "peak_ram <= l1.size", quick: "latency <= 5*latency"}
deploy: {w_bits: 8, a_bits: 8}
"""


@pytest.fixture(scope="module")
def chip() -> Platform:
    return loads(CHIP, "chip.yaml")


class Net(nn.Module):
    """conv 3 -> 8 on 6x6 without a border, batch norm, linear 128 -> 10."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.bn = nn.BatchNorm2d(8)
        self.fc = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc(self.bn(self.conv(x)).flatten(1))
        return y


@pytest.fixture(scope="module")
def net() -> Workload:
    return trace(Net(), input_shape=(3, 6, 6))


@pytest.fixture(scope="module")
def made(net: Workload, chip: Platform) -> Report:
    return report(net, chip)


def facts(made: Report) -> dict[str, str]:
    sheet = made.sheet()
    return dict([*sheet.facts, *sheet.results])


def test_each_op_runs_on_the_cheapest_engine_that_can(made: Report) -> None:
    assert made.columns()["engine"] == ["fast", "slow", "slow"]


def test_every_metric_is_placed_by_the_first_that_depends_on_the_engine(made: Report) -> None:
    assert {m.place_by for m in made.costs.models.values()} == {"latency"}
    assert "latency" in facts(made)["placed by"]


def test_the_frame_is_in_si_units_and_its_columns_say_which(made: Report) -> None:
    # 8 cycles on the fast engine and 20 on the slow one at 100 MHz.
    assert made.to_frame()["latency_s"].tolist() == pytest.approx([8e-8, 0, 2e-7])


def test_totals_are_those_of_the_cost_model(made: Report, net: Workload, chip: Platform) -> None:
    ms = float(CostModel(chip, "latency").total(net))
    assert made.totals["latency_s"] == pytest.approx(ms / 1000)


def test_shares_add_up_to_one(made: Report) -> None:
    assert sum(made.columns()["latency_share"]) == pytest.approx(1)


def test_precision_names_the_bits_of_the_priced_rows(made: Report) -> None:
    assert facts(made)["precision"] == "w2a8, w8a8"


def test_a_status_is_spelled_out(net: Workload) -> None:
    assert "no silicon was measured" in facts(report(net, "gap8_compute"))["status"]


def test_coverage_is_the_share_of_macs_and_bytes(made: Report) -> None:
    # Bytes: conv 108 + 128 + 54 (2-bit weights), linear 128 + 10 + 1280; norm 128 + 128.
    assert made.costs.coverage.macs == 1
    assert made.costs.coverage.bytes == pytest.approx(1708 / (1708 + 256))
    assert "free: 1 norm" in facts(made)["covers"]


def test_coverage_tells_what_only_the_default_formula_prices(net: Workload) -> None:
    text = CHIP.replace("    - {match: norm, free: folded}", "    default: {cycles: 1}")
    assert "default formula: 0 % of MACs" in facts(report(net, loads(text)))["covers"]


def test_the_peak_names_its_op_and_what_is_alive(made: Report) -> None:
    # The convolution holds its input, 3*6*6 bytes, and its output, 8*4*4.
    assert facts(made)["peak_ram"] == "236 B at 'conv' (conv), alive: conv 128 B, input 108 B"


def test_json_names_the_op_that_holds_the_peak(made: Report) -> None:
    found = json.loads(made.to_json())["peaks"]["peak_ram"]
    assert found["layer"] == "conv"
    assert sum(part["bytes"] for part in found["alive"]) == 236


def test_memories_say_whether_what_they_hold_fits(made: Report) -> None:
    assert facts(made)["l1"] == "236 B of 1 KiB activations: fits"
    assert facts(made)["flash"].endswith("of 64 B weights: DOES NOT FIT")


def test_weights_are_counted_at_the_bits_they_have(made: Report) -> None:
    assert facts(made)["flash"].startswith("1.3 KiB")  # 54 + 1280 bytes


def test_limits_are_evaluated(made: Report, net: Workload) -> None:
    assert facts(made)["small"] == "peak_ram <= l1.size: met"
    tight = loads(CHIP.replace("size: 1 KiB", "size: 235 B"))
    assert facts(report(net, tight))["small"] == "peak_ram <= l1.size: NOT MET"


def test_a_limit_is_evaluated_though_its_metric_was_not_asked_for(
    net: Workload, chip: Platform
) -> None:
    assert facts(report(net, chip, "weight_bytes"))["small"].endswith(": met")


def test_mapping_places_a_layer(net: Workload, chip: Platform) -> None:
    assert report(net, chip, mapping={"conv": "slow"}).columns()["engine"][0] == "slow"


def test_a_mapping_of_an_unknown_layer_is_refused(net: Workload, chip: Platform) -> None:
    with pytest.raises(UnknownName, match="did you mean 'conv'"):
        report(net, chip, mapping={"cnv": "slow"})


def test_precision_is_that_of_every_op(net: Workload) -> None:
    assert facts(report(net, "mpic", precision="w4a8"))["precision"] == "w4a8"


@pytest.mark.parametrize("text", ["8", "", "w", "8w", "w8 a8", "wxa8"])
def test_a_precision_that_is_none_is_refused(net: Workload, text: str) -> None:
    with pytest.raises(WorkloadError, match="expected bits such as 'w8a8'"):
        report(net, "mpic", precision=text)


class WithMatmul(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        return y.T @ y


@pytest.fixture(scope="module")
def partial() -> Workload:
    return trace(WithMatmul(), input_shape=(3, 6, 6))


def test_an_op_without_a_formula_stops_a_report(partial: Workload, chip: Platform) -> None:
    with pytest.raises(UnsupportedOp, match="no weights"):
        report(partial, chip)


def quiet_report(workload: Workload, platform: Platform) -> Report:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HwcostWarning)
        return report(workload, platform, on_unsupported="warn")


def test_a_total_without_all_ops_is_a_lower_bound(partial: Workload, chip: Platform) -> None:
    made = quiet_report(partial, chip)
    assert facts(made)["latency"] == ">= 280 ns"
    assert made.to_dict()["lower_bounds"] == ["latency_s"]


def test_an_op_without_a_formula_has_no_number(partial: Workload, chip: Platform) -> None:
    made = quiet_report(partial, chip)
    assert math.isnan(made.columns()["latency_s"][-1])
    assert next(c for c in made.sheet().columns if c.title == "latency").cells[-1] == "?"


def test_a_warning_is_said_once_for_all_metrics(partial: Workload, chip: Platform) -> None:
    with pytest.warns(HwcostWarning, match="matmul") as caught:
        report(partial, chip, ["latency", "weight_bytes", "peak_ram"], on_unsupported="warn")
    assert len(caught) == 1


def test_a_table_without_a_schedule_has_no_peak(chip: Platform) -> None:
    grid = Workload.grid("linear", cin=[8, 16], cout=[4])
    assert "peak_ram" not in facts(report(grid, chip))


def test_executions_count(net: Workload, chip: Platform) -> None:
    thrice = net.with_columns(weight=[3, 1, 1])
    made = report(thrice, chip, "latency")
    assert made.columns()["latency_s"][0] == pytest.approx(24e-8)
    assert made.totals["latency_s"] == pytest.approx(44e-8)


@pytest.mark.parametrize("name", available())
def test_every_platform_reports_without_nan_in_its_totals(name: str, net: Workload) -> None:
    made = quiet_report(net, load(name))
    assert all(math.isfinite(total) for total in made.totals.values())


# Comparisons


@pytest.fixture(scope="module")
def comparison(net: Workload, partial: Workload, chip: Platform) -> Comparison:
    return compare({"net": net, "partial": partial}, [chip, "ne16_compute", "counts"])


def test_a_comparison_has_a_row_for_each_pair(comparison: Comparison) -> None:
    columns = comparison.columns()
    assert columns["model"] == ["net"] * 3 + ["partial"] * 3
    assert columns["platform"] == ["chip", "ne16_compute", "counts"] * 2


def test_units_do_not_share_a_column_of_the_frame(comparison: Comparison) -> None:
    frame = comparison.to_frame()
    assert frame["latency_s"].notna().tolist() == [True, False, False] * 2
    assert frame["latency_cycle"].notna().tolist() == [False, True, False] * 2


def test_text_says_the_unit_in_each_cell(comparison: Comparison) -> None:
    latency = next(c for c in comparison.sheet().columns if c.title == "latency")
    assert latency.cells[0].endswith(" ns")
    assert latency.cells[1].endswith("cycle")
    assert latency.cells[2] == "-"


def test_a_comparison_marks_lower_bounds_and_says_why(comparison: Comparison) -> None:
    columns = comparison.columns()
    assert columns["lower_bound"] == [False, False, False, True, True, False]
    assert "1 matmul" in columns["note"][3]
    assert ">= 280 ns" in str(comparison)


def test_macs_are_those_of_the_network_not_of_the_platform(comparison: Comparison) -> None:
    # 8*4*4*3*3*3 + 128*10, and 10*10 of the product.
    assert comparison.columns()["macs"] == [4736.0] * 3 + [4836.0] * 3


def test_no_column_is_called_flops(comparison: Comparison) -> None:
    assert not [name for name in comparison.columns() if "flop" in name.lower()]


def test_a_platform_that_cannot_price_a_network_says_why(net: Workload) -> None:
    made = compare(net.with_precision(w_bits=3), ["mpic", "ne16_compute"])
    assert made.entries[0].costs is None
    assert "w3a8" in made.columns()["note"][0]
    assert made.entries[1].costs is not None


def test_usual_metrics_are_those_that_hardware_decides(net: Workload) -> None:
    assert compare(net).metrics == ["latency", "energy", "peak_ram"]


def test_one_platform_compares_by_all_its_metrics(net: Workload) -> None:
    assert list(compare(net, "counts").metrics) == list(load("counts").metrics)


def test_a_metric_that_no_platform_has_is_refused(net: Workload) -> None:
    with pytest.raises(UnknownName, match="did you mean 'latency'"):
        compare(net, metrics=["latncy"])


def test_a_model_is_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from hwcost import reports_models

    calls = []

    def counted(*args: Any, **kwargs: Any) -> Workload:
        calls.append(args)
        return trace(*args, **kwargs)

    monkeypatch.setattr(reports_models, "trace", counted)
    compare((Net(), torch.zeros(1, 3, 6, 6)), ["mpic", "counts", "diana"])
    assert len(calls) == 1


@pytest.mark.parametrize(
    "models",
    [
        "ds_cnn",
        ["ds_cnn", "autoencoder"],
        (Net(), torch.zeros(1, 3, 6, 6)),
        [(Net(), torch.zeros(1, 3, 6, 6)), "ds_cnn"],
        {"mine": (Net(), torch.zeros(1, 3, 6, 6)), "other": "ds_cnn"},
    ],
)
def test_models_come_as_names_pairs_and_dicts(models: Any) -> None:
    assert len(compare(models, "counts", "macs").entries) == (
        1 if isinstance(models, str | tuple) else 2
    )


def test_two_models_of_one_class_get_two_names() -> None:
    pair = (Net(), torch.zeros(1, 3, 6, 6))
    assert compare([pair, pair], "counts").columns()["model"] == ["Net", "Net 2"]


def test_a_model_without_an_example_is_refused() -> None:
    with pytest.raises(TraceError, match=r"Net: .*example"):
        compare(Net(), "counts")


def test_an_input_shape_stands_in_for_an_example() -> None:
    assert compare(Net(), "counts", "macs", input_shape=(3, 6, 6)).columns()["macs"] == [4736.0]


@pytest.mark.parametrize("wrong", [3, None, object()])
def test_what_is_not_a_model_is_refused(wrong: Any) -> None:
    with pytest.raises(TraceError, match="is not a model"):
        compare([wrong], "counts")


def test_progress_is_told_before_each_step(net: Workload) -> None:
    steps: list[tuple[str, int, int]] = []
    compare({"n": net}, ["mpic", "counts"], progress=lambda *step: steps.append(step))
    assert steps == [("n on mpic", 0, 2), ("n on counts", 1, 2)]


# Cost tables


def test_a_cost_table_is_tidy(net: Workload) -> None:
    frame = table(net, ["mpic", "diana"], "latency").to_frame()
    assert frame["platform"].tolist() == ["mpic"] * 3 + ["diana"] * 3
    assert {"layer", "kind", "engine", "status", "cin", "kh", "w_bits", "latency_s"} <= set(frame)


def test_a_cost_table_leaves_out_sizes_that_are_as_usual(net: Workload) -> None:
    frame = table(net, "mpic").to_frame()
    assert not {"dh", "groups", "kd", "lq", "weight"} & set(frame)


def test_a_cost_table_equals_the_cost_model() -> None:
    grid = Workload.grid("linear", cin=[8, 16], cout=[4, 12, 20])
    frame = table(grid, "gap8_compute").to_frame()
    due = CostModel("gap8_compute", "latency").rows(grid)
    assert frame["latency_s"].tolist() == due.tolist()
    assert "layer" not in frame


def test_a_long_table_is_priced_in_blocks_with_the_same_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from hwcost import reports_parts, reports_table

    grid = Workload.grid("linear", cin=range(1, 11), cout=range(1, 11))
    whole = table(grid, "gap8_compute").to_csv()
    monkeypatch.setattr(reports_parts, "BLOCK", 7)
    monkeypatch.setattr(reports_table, "BLOCK", 13)
    assert table(grid, "gap8_compute").to_csv() == whole


def test_a_metric_without_a_value_on_a_platform_is_empty(net: Workload) -> None:
    frame = table(net, ["mpic", "ne16_compute"], ["latency", "energy"]).to_frame()
    assert frame["energy_j"].isna().tolist() == [False] * 3 + [True] * 3


def test_a_csv_can_be_read_back(net: Workload, tmp_path: Path) -> None:
    import pandas as pd

    made = table(net, ["mpic", "diana"])
    made.write(tmp_path / "costs.csv")
    back = pd.read_csv(tmp_path / "costs.csv")
    assert list(back) == list(made.to_frame())
    assert back["latency_s"].tolist() == made.to_frame()["latency_s"].tolist()


def test_parquet_without_pyarrow_says_what_to_install(
    net: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingLibrary, match=r"pip install 'hwcost\[parquet\]'"):
        table(net, "mpic").write(tmp_path / "costs.parquet")


def test_parquet_can_be_read_back(net: Workload, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    made = table(net, "mpic")
    made.write(tmp_path / "costs.parquet")
    back = parquet.read_table(tmp_path / "costs.parquet").to_pydict()
    assert back["latency_s"] == made.to_frame()["latency_s"].tolist()


# Formats


REPORTS = ("made", "comparison", "costs")


@pytest.fixture(scope="module")
def costs(net: Workload, chip: Platform) -> Any:
    return table(net, [chip, "counts"])


@pytest.fixture(params=REPORTS)
def any_report(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("suffix", [".csv", ".md", ".tex", ".html", ".json", ".txt"])
def test_a_suffix_names_the_format(any_report: Any, suffix: str, tmp_path: Path) -> None:
    any_report.write(tmp_path / f"out{suffix}")
    assert (tmp_path / f"out{suffix}").read_text().strip()


def test_a_suffix_that_names_no_format_is_refused(made: Report, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"known: \.csv"):
        made.write(tmp_path / "out.doc")


def test_an_unknown_format_names_the_nearest(made: Report) -> None:
    with pytest.raises(UnknownName, match="did you mean 'latex'"):
        made.formatted("latx")


def test_json_has_no_nan(any_report: Any) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    assert json.loads(any_report.to_json(), parse_constant=refuse)["rows"]


def test_a_markdown_table_has_equally_many_bars_in_each_line() -> None:
    columns = [Column("a|b", ["x|y", "z"]), Column("n", ["1", "2"], True)]
    lines = markdown(Sheet("", columns)).splitlines()
    assert lines[0] == "| a\\|b | n |"
    assert lines[1] == "|---|---:|"
    assert {line.replace("\\|", "").count("|") for line in lines} == {3}


def test_latex_escapes_what_is_special() -> None:
    assert tex("a_b & 5 % -> {x}") == r"a\_b \& 5 \% $\rightarrow$ \{x\}"


def test_latex_rows_have_as_many_cells_as_columns(any_report: Any) -> None:
    text = any_report.to_latex()
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.replace(r"\&", "").count("&") for line in rows} == {rows[0].count("&")}
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1


def test_html_escapes_what_is_special(made: Report) -> None:
    assert "of &lt;two&gt; engines &amp;" in made.to_html()


def test_plain_text_is_ascii_and_without_colours(any_report: Any) -> None:
    assert str(any_report).isascii()
    assert "\x1b" not in str(any_report)


def test_repr_is_one_short_line(any_report: Any) -> None:
    assert len(repr(any_report)) < 80
    assert "\n" not in repr(any_report)


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(any_report: Any, width: int) -> None:
    console = Console(width=width, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(any_report)
    assert max(map(len, captured.get().splitlines())) <= width


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_cuts_no_number(comparison: Comparison, width: int) -> None:
    console = Console(width=width, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(comparison)
    text = captured.get()
    assert "…" not in text
    assert "left out at this width: " in text
    for cell in next(c for c in comparison.sheet().columns if c.title == "latency").cells:
        assert cell in text


def test_text_from_a_platform_is_not_taken_for_markup(net: Workload) -> None:
    text = CHIP.replace("title: a chip |", "title: chip [red]a chip[/blue] |")
    console = Console(width=120, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(report(net, loads(text)))
    assert "[red]a chip[/blue]" in captured.get()


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_status_and_error_stand_beside_the_latency_at_any_width(width: int) -> None:
    names = ["stm32h7a3_xcubeai", "gap9", "gap8_compute"]
    text = compare("autoencoder", names, ["latency"], measured=True).to_text(width)
    row = next(line for line in text.splitlines() if "gap9" in line)
    assert "±17 %" in row
    assert "measu" in row
    assert max(map(len, text.splitlines())) <= width


def test_a_source_of_several_measurements_is_named_once() -> None:
    names = ["stm32h7a3_xcubeai", "stm32l4r5_xcubeai"]
    text = str(compare("autoencoder", names, ["latency"], measured=True))
    assert text.count("tiny_results") == 1


def test_a_narrow_table_leaves_out_metrics_and_cuts_none() -> None:
    console = Console(width=60, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(table("autoencoder", ["xg24"]))
    assert "…" not in captured.get()


def test_no_more_titles_are_abbreviated_than_need_be() -> None:
    columns = [Column("first", ["1"], short="a"), Column("second", ["2"], short="b", rank=1)]
    assert [c.title for c in fit(columns, 12)[0]] == ["first", "b"]


def test_cells_become_alike_only_where_they_fit_no_other_way() -> None:
    cells = ["same" + middle * 20 + "same" for middle in "ab"]
    wide, narrow = (fit([Column("name", cells, least=12)], width)[0][0] for width in (20, 12))
    assert len(set(wide.cells)) == 2
    assert {len(cell) for cell in narrow.cells} == {12}


def test_columns_go_by_rank_where_the_width_is_short() -> None:
    columns = [Column("a", ["1" * 10]), Column("b", ["2" * 10], rank=1), Column("c", ["3"], rank=2)]
    kept, dropped = fit(columns, 12)
    assert [c.title for c in kept] == ["a"]
    assert dropped == ["c", "b"]


def test_a_cell_is_cut_in_its_middle() -> None:
    assert shorten("blocks.10.conv.weight", 12) == "block..eight"


def test_a_sheet_without_rows_is_a_heading() -> None:
    assert plain(Sheet("", [Column("a", [])])).splitlines() == ["a", "-"]


@pytest.mark.parametrize(
    ("share", "text"),
    [(1.0, "100 %"), (0.99999, "> 99.9 %"), (0.404, "40.4 %"), (0.0, "0 %"), (1e-6, "< 0.01 %")],
)
def test_all_and_nothing_are_only_said_of_all_and_nothing(share: float, text: str) -> None:
    assert percent(share) == text


CONV = {"cin": 3, "cout": 8, "kh": 3, "kw": 3, "ih": 6, "iw": 6, "oh": 4, "ow": 4}


@pytest.mark.parametrize(
    ("kind", "sizes", "text"),
    [
        ("conv", CONV, "3x6x6 -> 8x4x4 k3x3"),
        ("conv", CONV | {"sh": 2, "sw": 2, "groups": 3}, "3x6x6 -> 8x4x4 k3x3 s2 dw"),
        ("conv", CONV | {"sh": 2, "sw": 1, "dh": 2, "dw": 2}, "3x6x6 -> 8x4x4 k3x3 s2x1 d2"),
        ("conv", CONV | {"kh": 1, "ih": 1, "oh": 1}, "3x6 -> 8x4 k3"),
        ("conv", CONV | {"kd": 3, "id": 5, "od": 3}, "3x5x6x6 -> 8x3x4x4 k3x3x3"),
        ("conv", CONV | {"batch": 4, "groups": 2}, "3x6x6 -> 8x4x4 k3x3 g2 b4"),
        ("linear", {"cin": 4, "cout": 2}, "4 -> 2"),
        ("linear", {"cin": 4, "cout": 2, "positions": 7}, "7x4 -> 7x2"),
        ("matmul", {"m": 2, "n": 3, "k": 4, "batch": 5}, "2x4 @ 4x3 b5"),
        ("attention", {"heads": 2, "lq": 3, "lk": 4, "dhead": 8}, "2 heads of 8, 3 x 4"),
        ("rnn", {"cin": 4, "cout": 2, "positions": 7, "gates": 4}, "7x4 -> 7x2 lstm"),
        ("norm", {"elements": 128}, "128"),
    ],
)
def test_sizes_read_like_shapes(kind: str, sizes: dict[str, float], text: str) -> None:
    assert sizes_text(kind, sizes) == text


@pytest.mark.parametrize("make", [compare, table])
@pytest.mark.parametrize("mapping", ["clustr", {"stem.conv": "clustr"}])
def test_an_engine_that_no_platform_has_is_an_error(
    make: Callable[..., object], mapping: str | dict[str, str]
) -> None:
    with pytest.raises(UnknownName, match="has an engine 'clustr'; did you mean 'cluster'"):
        make("resnet8", ["gap8_compute", "diana"], mapping=mapping)


def test_a_metric_to_place_by_that_no_platform_has_is_an_error() -> None:
    with pytest.raises(UnknownName, match="has a metric 'latncy'; did you mean 'latency'"):
        compare("resnet8", ["diana"], place_by="latncy")
