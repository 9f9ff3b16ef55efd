"""xG24 and STM32H743: the errors that the files state, and what the formulas say of them."""

from functools import cache
from pathlib import Path

import pytest
import torch

from hwcost.checks import results
from hwcost.costmodel import CostModel
from hwcost.derived_rows import kernels, measured_kinds
from hwcost.fit_errors import p90
from hwcost.loading import load
from hwcost.measurements import read_measurements
from hwcost.workload import Workload

DATA = Path(__file__).parents[1] / "docs" / "data"
NAMES = ("xg24", "stm32h743_cmsisnn")


@cache
def errors(name: str, of: str) -> torch.Tensor:
    """Relative errors on the measured rows, without sign."""
    model = CostModel(name, "latency")
    found = [
        float(model.total(reading.workload)) / reading.value - 1
        for reading in read_measurements(DATA / f"{name}.csv", load(name)).readings
        if reading.of == of
    ]
    return torch.tensor(found, dtype=torch.float64).abs()


def conv(name: str, **sizes: float) -> float:
    """Latency of a 3x3 convolution of an 8x8 image with padding, in cycles."""
    usual = {"cin": 32, "cout": 32, "kh": 3, "kw": 3, "ih": 8, "iw": 8, "oh": 8, "ow": 8}
    clock = float(load(name).params["clock"].quantity.value)
    table = Workload.from_columns("conv", **(usual | sizes))
    return float(CostModel(name, "latency").total(table)) * clock


@pytest.mark.parametrize(
    ("name", "of"), [("xg24", "layers"), ("xg24", "nets"), ("stm32h743_cmsisnn", "layers")]
)
def test_the_stated_errors_are_those_on_the_data(name: str, of: str) -> None:
    stated, found = load(name).error("latency", of=of), errors(name, of)
    assert stated is not None
    assert stated.rows == len(found)
    assert stated.median == pytest.approx(float(found.quantile(0.5)), abs=5e-4)
    assert stated.p90 == pytest.approx(p90(found), abs=1e-3)


def test_rows_of_the_calibration_are_those_of_the_data() -> None:
    for name in NAMES:
        calibration = load(name).calibration
        assert calibration is not None
        readings = read_measurements(DATA / f"{name}.csv", load(name)).readings
        assert calibration.rows == len(readings)
        layers = [r.workload for r in readings if r.kind]
        pairs = ((measured_kinds(rows), kernels(rows)) for rows in layers)
        found = {
            f"{kind} {kernel}".rstrip() for one in pairs for kind, kernel in zip(*one, strict=True)
        }
        assert set(calibration.kinds) == found


def test_xg24_layers_are_within_10_percent_and_networks_within_7() -> None:
    assert float(errors("xg24", "layers").median()) < 0.10
    assert float(errors("xg24", "nets").max()) < 0.07


def test_every_stm32h743_layer_is_within_12_percent() -> None:
    assert float(errors("stm32h743_cmsisnn", "layers").max()) < 0.12


@pytest.mark.parametrize("name", NAMES)
def test_golden_points_hold(name: str) -> None:
    assert [result.error for result in results(load(name)) if not result.ok] == []


@pytest.mark.parametrize(
    ("cin", "rate"), [(8, 0.83), (256, 1.31)], ids=["8 channels", "256 channels"]
)
def test_xg24_macs_per_cycle_of_1x1_convolutions_rise_with_cin(cin: int, rate: float) -> None:
    found = 64 * 32 * cin / conv("xg24", cin=cin, kh=1, kw=1)
    assert found == pytest.approx(rate, rel=0.05)


def test_xg24_computes_no_padding() -> None:
    # The corner of an 8x8 image has 4 of 9 taps, an edge 6: (3*8 - 2)**2 of (3*8)**2.
    padded = conv("xg24")
    whole = conv("xg24", ih=10, iw=10)
    pair, out = (load("xg24").params[name].quantity.value for name in ("pair", "out"))
    assert padded == pytest.approx(32 * (float(pair) * 22**2 * 16 + float(out) * 64), rel=1e-12)
    assert whole == pytest.approx(32 * (float(pair) * 24**2 * 16 + float(out) * 64), rel=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_xg24_counts_the_taps_inside_the_image(size: int, kernel: int, stride: int) -> None:
    # An image of one column, so only the height has padding; as TensorFlow's SAME spreads it.
    rows = size * stride
    pad = max(0, (size - 1) * stride + kernel - rows)
    inside = sum(0 <= o * stride + k - pad // 2 < rows for o in range(size) for k in range(kernel))
    sizes = {"ih": rows, "oh": size, "kh": kernel, "sh": stride, "iw": 1, "ow": 1, "kw": 1}
    cycles = conv("xg24", cin=4096, cout=64, **sizes)
    pair, out = (load("xg24").params[name].quantity.value for name in ("pair", "out"))
    found = (cycles / 64 - float(out) * size) / (float(pair) * 2048)
    assert found == pytest.approx(inside, rel=0.06)


def test_xg24_waits_for_the_cpu_where_a_depthwise_layer_has_few_channels() -> None:
    params = load("xg24").params
    start, program, again = (
        float(params[name].quantity.value) for name in ("invoke", "program", "rewrite")
    )
    cycles = conv("xg24", cin=32, cout=32, groups=32)
    assert cycles == pytest.approx(start + program + again * 64)


def test_stm32h743_computes_two_positions_at_once() -> None:
    name = "stm32h743_cmsisnn"
    assert conv(name, oh=5, ow=5) == conv(name, oh=13, ow=2)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_measured_layers_are_finite(name: str) -> None:
    model = CostModel(name, "latency")
    for reading in read_measurements(DATA / f"{name}.csv", load(name)).readings:
        if reading.kind in ("conv", "linear"):
            cout = reading.workload.column("cout").clone().requires_grad_()
            model.total(reading.workload.with_columns(cout=cout)).backward()
            assert cout.grad is not None
            assert 0 < float(cout.grad) < float("inf")


def test_xg24_energy_is_8_to_11_mw() -> None:
    table = Workload.from_columns("linear", cin=640, cout=128)
    power = float(CostModel("xg24", "energy").total(table)) / float(CostModel("xg24").total(table))
    assert 8e-3 < power < 11e-3
