"""The shipped platforms give what the published formulas give, layer by layer."""

import csv
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hwcost.costmodel import CostModel
from hwcost.workload import Workload

DATA = Path(__file__).parent / "data" / "published"
Row = dict[str, str]


def read(name: str) -> list[Row]:
    with (DATA / name).open() as file:
        return list(csv.DictReader(file))


def workload(rows: list[Row], swap: bool = False, engine: str | None = None) -> Workload:
    """The rows as an op table; ``swap`` exchanges height and width."""
    height, width = ("w", "h") if swap else ("h", "w")
    table: dict[str, list[object]] = {"layer": [f"row {row['row']}" for row in rows]}
    table["kind"] = ["linear" if row["kind"] == "linear" else "conv" for row in rows]
    table["engine"] = [engine] * len(rows)
    for size in ("cin", "cout", "bias", "w_bits", "a_bits"):
        table[size] = [float(row[size]) for row in rows]
    source = {"kh": f"k{height}", "kw": f"k{width}", "oh": f"o{height}", "ow": f"o{width}"}
    for size, column in (source | {"groups": "groups"}).items():
        table[size] = [None if row["kind"] == "linear" else float(row[column]) for row in rows]
    return Workload.from_frame(table)


def column(rows: list[Row], name: str) -> Tensor:
    return torch.tensor([float(row[name]) for row in rows], dtype=torch.float64)


def assert_equal(found: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    assert len(found) > 10
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=0)


def cycles(platform: str, table: Workload, clock_hz: float) -> Tensor:
    return CostModel(platform, "latency").rows(table) * clock_hz


def test_params_equal_the_reference() -> None:
    rows = read("params.csv")
    assert_equal(CostModel("counts", "params").rows(workload(rows)), column(rows, "params"))


def test_params_without_biases_equal_the_reference() -> None:
    rows = [row | {"bias": "0"} for row in read("params.csv")]
    assert_equal(CostModel("counts", "params").rows(workload(rows)), column(rows, "params_no_bias"))


def test_macs_equal_the_reference_without_biases() -> None:
    rows = read("ops.csv")
    assert_equal(CostModel("counts", "macs").rows(workload(rows)), column(rows, "ops_no_bias"))


def test_macs_equal_the_reference_where_there_is_no_bias() -> None:
    rows = [row for row in read("ops.csv") if row["bias"] == "0"]
    assert_equal(CostModel("counts", "macs").rows(workload(rows)), column(rows, "ops"))


def test_weight_bits_and_bitops_equal_the_reference() -> None:
    rows = read("bits.csv")
    table = workload(rows)
    assert_equal(8 * CostModel("counts", "weight_bytes").rows(table), column(rows, "params_bit"))
    assert_equal(CostModel("counts", "bitops").rows(table), column(rows, "ops_bit"))


def test_mpic_latency_equals_the_reference() -> None:
    rows = [row for row in read("mpic.csv") if row["bias"] == "0"]
    assert_equal(cycles("mpic", workload(rows), 250e6), column(rows, "mpic_latency"))


def test_mpic_energy_equals_the_reference() -> None:
    rows = [row for row in read("mpic.csv") if row["bias"] == "0"]
    energy = CostModel("mpic", "energy").rows(workload(rows))
    assert_equal(energy, column(rows, "mpic_energy"), tolerance=1e-6)


def test_gap8_latency_equals_the_reference() -> None:
    rows = read("gap8.csv")
    assert_equal(cycles("gap8_compute", workload(rows), 175e6), column(rows, "gap8_latency"))


def test_ne16_latency_equals_the_reference() -> None:
    rows = [r for r in read("ne16.csv") if float(r["w_theta_alpha"]) == 1 and r["w_bits"] != "0"]
    assert_equal(CostModel("ne16_compute").rows(workload(rows)), column(rows, "ne16_latency"))


@pytest.mark.parametrize(("engine", "w_bits"), [("digital", "8"), ("analog", "2")])
def test_diana_latency_equals_the_reference(engine: str, w_bits: str) -> None:
    rows = [row for row in read("diana.csv") if row["w_bits"] == w_bits]
    table = workload(rows, swap=True, engine=engine)
    assert_equal(cycles("diana", table, 260e6), column(rows, "diana_latency"))


def test_darkside_depthwise_engine_by_hand() -> None:
    table = Workload.from_columns(
        "conv", cin=24, cout=24, groups=24, kh=3, kw=3, oh=5, ow=7, w_bits=8, a_bits=8
    )
    assert float(CostModel("darkside").total(table)) == 2 * (9 + 9 * 7 + 4 * 7 * 5)


def test_darkside_energy_counts_the_engine_that_waits() -> None:
    table = Workload.from_columns("conv", cin=24, cout=24, groups=24, kh=3, kw=3, oh=5, ow=7)
    busy = float(CostModel("darkside").total(table))
    energy = float(CostModel("darkside", "energy").total(table))
    assert energy == pytest.approx(0.118 * busy + 0.00132 * busy, rel=1e-12)


def test_diana_energy_of_a_layer_on_both_engines() -> None:
    half: dict[str, list[object]] = {
        "layer": ["c", "c"],
        "kind": ["conv"] * 2,
        "op": [0, 0],
        "engine": ["digital", "analog"],
    }
    sizes: dict[str, list[object]] = {
        "cin": [64, 64],
        "cout": [32, 96],
        "kh": [3, 3],
        "kw": [3, 3],
        "oh": [8, 8],
        "ow": [8, 8],
    }
    table = Workload.from_frame(half | sizes)
    digital, analog = CostModel("diana").rows(table).tolist()
    both = min(digital, analog)
    expected = 42.39e-3 * both + 24.96e-3 * (digital - both) + 28.74e-3 * (analog - both)
    assert float(CostModel("diana", "energy").total(table)) == pytest.approx(expected, rel=1e-12)
    assert float(CostModel("diana").total(table)) == max(digital, analog)
