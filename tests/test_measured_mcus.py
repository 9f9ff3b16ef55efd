"""Microcontrollers and NPUs: errors that the files state, and where their numbers come from."""

import json
from functools import cache
from pathlib import Path

import pytest
import torch

from hwcost.costmodel import CostModel
from hwcost.fit import fit
from hwcost.fit_errors import p90
from hwcost.fit_model import measured_model, predictions
from hwcost.loading import load, loads
from hwcost.measurements import read_measurements
from hwcost.platform import Platform
from hwcost.workload import Workload

DATA = Path(__file__).parents[1] / "docs" / "data"
FAMILY = ("stm32l4r5_xcubeai", "stm32h7a3_xcubeai", "stm32u575_xcubeai")
MEASURED = ("stm32l4r5_xcubeai", "stm32h7a3_xcubeai", "ndp9120", "ethos_u55_128")
ALL = (*FAMILY, "ndp9120", "ethos_u55_128")

#: Layers of CMSIS-NN on an STM32H743: kind, sizes and cycles
#: (EEESlab/mobilenet_v1_stm32_cmsis_nn@401f0bbf:docs/imgs/profiling_160_0_25.png).
H743 = (
    ("conv", {"cin": 3, "cout": 8, "kh": 3, "kw": 3, "oh": 80, "ow": 80}, 5336698),
    ("conv", {"cin": 8, "cout": 8, "groups": 8, "kh": 3, "kw": 3, "oh": 80, "ow": 80}, 6852997),
    ("conv", {"cin": 8, "cout": 16, "kh": 1, "kw": 1, "oh": 80, "ow": 80}, 3234362),
    ("conv", {"cin": 64, "cout": 64, "groups": 64, "kh": 3, "kw": 3, "oh": 20, "ow": 20}, 2330715),
    ("conv", {"cin": 64, "cout": 64, "kh": 1, "kw": 1, "oh": 20, "ow": 20}, 3061483),
    ("conv", {"cin": 128, "cout": 128, "kh": 1, "kw": 1, "oh": 10, "ow": 10}, 2911048),
    ("pool", {"cin": 256, "cout": 256, "kh": 5, "kw": 5, "id": 1, "ih": 5, "iw": 5}, 38831),
    ("linear", {"cin": 256, "cout": 1000}, 682141),
)


@cache
def off(name: str, metric: str) -> torch.Tensor:
    """Relative errors on the measured networks, with sign."""
    platform = load(name)
    found = []
    for reading in read_measurements(DATA / f"{name}.csv", platform).readings:
        if reading.metric == metric:
            model = measured_model(platform, metric)
            predicted = float(model.total(reading.workload)) * float(model.metric.unit.value)
            found.append(predicted / reading.value - 1)
    return torch.tensor(found, dtype=torch.float64)


def stated() -> list[tuple[str, str]]:
    found = []
    for name in MEASURED:
        calibration = load(name).calibration
        assert calibration is not None
        found += [(name, metric) for metric in calibration.errors]
    return found


@pytest.mark.parametrize(("name", "metric"), stated())
def test_the_stated_errors_are_those_on_the_data(name: str, metric: str) -> None:
    error = load(name).error(metric, of="nets")
    errors = off(name, "cycles" if name == "ethos_u55_128" else metric).abs()
    assert error is not None
    assert error.rows == len(errors)
    assert error.p90 == pytest.approx(p90(errors), abs=0.0051)
    assert error.median == pytest.approx(float(errors.quantile(0.5)), abs=0.0051)


@pytest.mark.parametrize("name", MEASURED)
def test_networks_are_within_15_percent(name: str) -> None:
    errors = off(name, "cycles" if name == "ethos_u55_128" else "latency")
    assert float(errors.abs().max()) < 0.15


@pytest.mark.parametrize("name", ["stm32l4r5_xcubeai", "stm32h7a3_xcubeai"])
def test_energy_is_within_10_percent(name: str) -> None:
    assert float(off(name, "energy").abs().max()) < 0.10


def h743() -> Platform:
    """The family with the speed of an STM32H743 that runs CMSIS-NN."""
    speed = {"mac": "1.68 cycle/op", "fetch": "0.94 cycle/B", "clock": "400 MHz"}
    return load("stm32l4r5_xcubeai").with_params(**speed)


@pytest.mark.parametrize(("kind", "sizes", "cycles"), H743, ids=lambda value: str(value)[:24])
def test_kinds_of_op_cost_what_layers_of_cmsis_nn_do(
    kind: str, sizes: dict[str, float], cycles: int
) -> None:
    sizes = {"oh": 1, "ow": 1} | sizes if kind == "pool" else sizes
    seconds = float(CostModel(h743(), "latency").total(Workload.from_columns(kind, **sizes)))
    assert seconds * 400e6 == pytest.approx(cycles, rel=0.02)


def without_autoencoder(name: str, folder: Path) -> Platform:
    """The family fitted to the other two networks, weights from flash as on the STM32H743."""
    head, _, *others = (DATA / f"{name}.csv").read_text().splitlines()
    rows = folder / f"{name}.csv"
    rows.write_text("\n".join([head, *others]))
    data = load(name).document.data
    fetch = data["params"]["fetch"] | {"value": "0.94 cycle/B", "fit": False}
    text = json.dumps({**data, "params": data["params"] | {"fetch": fetch}})
    return fit(loads(text, f"{name}.yaml"), rows).platform


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stm32l4r5_xcubeai", "stm32h7a3_xcubeai"])
def test_the_fit_gives_the_files_values_and_errors(name: str, tmp_path: Path) -> None:
    found, file = fit(name, DATA / f"{name}.csv"), load(name)
    for param in found.params:
        assert param.text == file.params[param.param.name].quantity.text
    assert found.unseen is not None
    readings = found.measurements.readings
    apart = predictions(without_autoencoder(name, tmp_path), readings)
    for metric in ("latency", "energy"):
        values = [
            (apart if reading.net == "autoencoder" else found.unseen)[row] / reading.value - 1
            for row, reading in enumerate(readings)
            if reading.metric == metric
        ]
        error = file.error(metric, of="nets")
        assert error is not None
        assert error.unseen_p90 == pytest.approx(p90(torch.stack(values).abs()), abs=0.0051)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ethos_u55_128", "ndp9120"])
def test_the_fit_gives_the_files_value(name: str) -> None:
    found, file = fit(name, DATA / f"{name}.csv"), load(name)
    (param,) = found.params
    assert param.value == pytest.approx(
        float(file.params[param.param.name].quantity.value), rel=0.002
    )


@pytest.mark.parametrize("param", ["mac", "fetch"])
def test_the_u575_has_the_l4r5s_cycles_by_dhrystone(param: str) -> None:
    new, old = (load(f"stm32{chip}_xcubeai").params[param].quantity for chip in ("u575", "l4r5"))
    assert float(new.value / old.value) == pytest.approx(1.25 / 1.5, rel=0.02)


def test_the_same_step_to_the_h7a3_is_as_far_off_as_the_file_says() -> None:
    base = load("stm32l4r5_xcubeai")
    values = {p: float(base.params[p].quantity.value) * 1.25 / 2.14 for p in ("mac", "fetch")}
    moved = base.with_params(
        mac=f"{values['mac']} cycle/op", fetch=f"{values['fetch']} cycle/B", clock="280 MHz"
    )
    model = CostModel(moved, "latency")
    readings = read_measurements(DATA / "stm32h7a3_xcubeai.csv", moved).readings
    errors = [
        float(model.total(r.workload)) / r.value - 1 for r in readings if r.metric == "latency"
    ]
    assert 0.12 < max(map(abs, errors)) < 0.13


def test_ethos_by_hand() -> None:
    # 8 by 8 positions are 32 pairs of rows, 64 channels are 8 blocks; a tap of 64 inputs takes two
    # steps of 4 cycles, and 9 taps 18: 32*8*18*4 cycles, more than 36864 bytes at 1 byte a cycle.
    conv = Workload.from_columns("conv", cin=64, cout=64, kh=3, kw=3, oh=8, ow=8)
    platform = load("ethos_u55_128")
    stall = float(platform.params["stall"].quantity.value)
    seconds = float(CostModel(platform, "latency").total(conv))
    assert seconds * 500e6 == pytest.approx(stall * max(32 * 8 * 18 * 4, 36864))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("size", ["cin", "cout", "oh"])
def test_more_of_a_convolution_takes_longer_and_has_a_gradient(name: str, size: str) -> None:
    model = CostModel(name, "latency")
    values: dict[str, float] = {"cin": 24, "cout": 40, "kh": 3, "kw": 3, "oh": 12, "ow": 12}
    column = torch.tensor([values[size]], dtype=torch.float64, requires_grad=True)
    cost = model.total(Workload.from_columns("conv", **values).with_columns(**{size: column}))
    cost.backward()
    more = model.total(Workload.from_columns("conv", **(values | {size: 2 * values[size]})))
    assert more.item() > cost.item()
    assert column.grad is not None
    assert 0 < column.grad.item() < float("inf")
