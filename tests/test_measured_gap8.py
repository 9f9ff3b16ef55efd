"""GAP8 and GAP9: the errors that the files state, and what the formulas must do beyond the data."""

from functools import cache
from pathlib import Path

import pytest
import torch

from hwcost.costmodel import CostModel
from hwcost.fit_model import measured_model
from hwcost.loading import load
from hwcost.measurements import Reading, read_measurements
from hwcost.workload import Workload

DATA = Path(__file__).parents[1] / "docs" / "data"
STATED = [
    ("gap8", "latency", "nets"),
    ("gap8", "latency", "layers"),
    ("gap8", "energy", "nets"),
    ("gap9", "latency", "nets"),
    ("gap9", "energy", "nets"),
]


@cache
def readings(name: str) -> tuple[Reading, ...]:
    return read_measurements(DATA / f"{name}.csv", load(name)).readings


@cache
def off(name: str, metric: str, of: str, net: str = "", point: str = "") -> torch.Tensor:
    """Relative errors, with sign, at the point of the row or at the one given."""
    found = []
    for reading in readings(name):
        if (reading.metric, reading.of) == (metric, of) and net in reading.net:
            at = point or reading.point
            platform = load(name).at(at) if at else load(name)
            model = measured_model(platform, metric)
            predicted = float(model.total(reading.workload)) * float(model.metric.unit.value)
            found.append(predicted / reading.value - 1)
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize(("name", "metric", "of"), STATED)
def test_the_stated_errors_are_those_on_the_data(name: str, metric: str, of: str) -> None:
    error = load(name).error(metric, of=of)
    errors = off(name, "cycles" if of == "layers" else metric, of).abs()
    assert error is not None
    assert error.rows == len(errors)
    assert error.p90 == pytest.approx(float(errors.quantile(0.9)), abs=0.0051)
    assert error.median == pytest.approx(float(errors.quantile(0.5)), abs=0.0051)


def test_networks_on_gap8_are_within_12_percent() -> None:
    assert float(off("gap8", "latency", "nets").abs().max()) < 0.12


def test_energy_on_gap8_is_within_15_percent() -> None:
    assert float(off("gap8", "energy", "nets").abs().max()) < 0.15


def test_half_of_the_layers_measured_on_silicon_are_within_20_percent_at_every_point() -> None:
    for point in ("gapuino", "1.2V"):
        errors = off("gap8", "cycles", "layers", "gapuino", point).abs()
        assert len(errors) == 17
        assert float(errors.median()) < 0.20


def test_pointwise_layers_of_the_earlier_software_need_its_point() -> None:
    layer = [r for r in readings("gap8") if r.layer == "14 pw" and r.net == "mobilenet_v1_gapuino"]
    cycles = {
        point: float(measured_model(load(f"gap8@{point}"), "cycles").total(layer[0].workload))
        for point in ("1.2V", "gapuino")
    }
    assert cycles["1.2V"] < 0.6 * layer[0].value
    assert cycles["gapuino"] == pytest.approx(layer[0].value, rel=0.1)


def test_no_kernel_of_gap8_is_faster_than_the_best_that_is_known() -> None:
    for sizes in ({"kh": 1, "kw": 1}, {}, {"kh": 5, "kw": 5}, {"groups": 512}):
        usual = {"cin": 512, "cout": 512, "kh": 3.0, "kw": 3.0} | sizes
        macs = usual["kh"] * usual["kw"] * 512 * 512 * 16 * 16 / usual.get("groups", 1)
        assert macs / (conv("gap8", **usual) * 175e6) < 15.5


def test_networks_on_gap9_are_within_12_percent() -> None:
    assert float(off("gap9", "latency", "nets").abs().max()) < 0.12


def conv(platform: str, **sizes: float) -> float:
    usual: dict[str, float] = {"cin": 64, "cout": 64, "kh": 3, "kw": 3, "oh": 16, "ow": 16}
    table = Workload.from_columns("conv", w_bits=8, a_bits=8, **(usual | sizes))
    return float(CostModel(platform, "latency").total(table))


def test_l3_starts_where_an_op_outgrows_the_usable_l2() -> None:
    fits, spills = (conv("gap8", cin=64, cout=c, kh=1, kw=1, oh=56, ow=56) for c in (64, 80))
    moved = 56 * 56 * (64 + 80)
    computed = 1770 + 56 * 56 * 80 * (64 / 15.5 + 2.85)
    assert spills * 175e6 == pytest.approx(computed + moved / 0.262)
    assert fits * 175e6 == pytest.approx(1770 + 56 * 56 * 64 * (64 / 15.5 + 2.85))


def test_weights_come_from_l3_while_computing() -> None:
    sizes = {"cin": 1024, "cout": 1024, "kh": 1, "kw": 1, "oh": 2, "ow": 2}
    fetched, moved = 1024 * 1024 / 0.262, 4 * 2048 / 0.262
    assert conv("gap8", **sizes) * 175e6 == pytest.approx(1770 + fetched + moved)
    computed = 4 * 1024 * (1024 / 7.4 + 2.85)
    assert conv("gap8@gapuino", **sizes) * 175e6 == pytest.approx(1770 + computed + fetched + moved)


def test_a_lower_voltage_is_slower_by_the_clock_and_takes_less_energy() -> None:
    table = Workload.from_columns("conv", cin=64, cout=64, kh=3, kw=3, oh=16, ow=16)
    high, low = (
        [float(CostModel(p, m).total(table)) for m in ("latency", "energy")]
        for p in ("gap8", "gap8@1.0V")
    )
    assert low[0] / high[0] == pytest.approx(175 / 90)
    assert low[1] < high[1]


def test_a_stride_of_2_on_ne16_computes_what_it_drops() -> None:
    dense, strided = (conv("gap9", sh=s, sw=s, oh=12, ow=12) for s in (1, 2))
    tiles = {1: 16, 2: 36}
    block = 2 * (4 * (31 + 6 + 6 + 256 + 2) + 9 + 32 + 13)
    extra = {s: 0.33 * (64 * 144 * s * s + 9 * 64 * 64 + 64 * 144) / 8 for s in (1, 2)}
    assert dense * 240e6 == pytest.approx(1770 + tiles[1] * block + extra[1])
    assert strided * 240e6 == pytest.approx(1770 + tiles[2] * block + extra[2])


@pytest.mark.parametrize(
    ("sizes", "engine"),
    [
        ({"kh": 3, "kw": 3}, "ne16"),
        ({"kh": 1, "kw": 1}, "ne16"),
        ({"kh": 10, "kw": 4}, "cluster"),
        ({"kh": 5, "kw": 5}, "cluster"),
    ],
)
def test_ne16_takes_what_it_can_do(sizes: dict[str, float], engine: str) -> None:
    table = Workload.from_columns("conv", cin=64, cout=64, oh=16, ow=16, **sizes)
    plan = CostModel("gap9", "latency").plan(table)
    engines = [*load("gap9").engines]
    assert [engines[group.engine] for group in plan.groups if group.engine is not None] == [engine]


@pytest.mark.parametrize("name", ["gap8", "gap8@1.0V", "gap8@gapuino", "gap9", "gap9@0.8V"])
def test_gradients_are_finite_on_both_sides_of_the_l2(name: str) -> None:
    cout = torch.tensor([1.0, 64, 80, 640], dtype=torch.float64, requires_grad=True)
    table = Workload.from_columns("conv", cin=64, cout=cout, kh=1, kw=1, oh=56, ow=56)
    CostModel(name, "latency").total(table).backward()
    assert cout.grad is not None
    assert bool((cout.grad > 0).all())
    assert bool(cout.grad.isfinite().all())
